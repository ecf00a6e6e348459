"""The model that is trained, its teacher, and the way from uint8 pixels to their inputs."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from levit_batch.errors import CheckpointError, ConfigError
from levit_batch.inference.fold import fold
from levit_batch.levit.checkpoint import Checkpoint, check_labels_photographs, load_checkpoint
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher
from levit_batch.levit.variants import VARIANTS
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.training.config import FinetuneConfig, StudentConfig

Student = LevitForImageClassification | LevitForImageClassificationWithTeacher


def starting_point(config: StudentConfig) -> Checkpoint | None:
    """The checkpoint to start from; None from scratch."""
    return load_checkpoint(config.checkpoint, config.revision) if config.checkpoint else None


def build_student(config: FinetuneConfig, start: Checkpoint | None, names: list[str]) -> Student:
    """A classifier for the classes `names`: one head, or two with a teacher; `processor` set; seeded.

    From a checkpoint the backbone is the checkpoint's, and so is each head when the class names are the same and the
    checkpoint has it; other heads are fresh. The checkpoint's second head is left behind when there is no teacher.
    """
    torch.manual_seed(config.train.seed)
    shape = start.config if start else scratch_config(config.model)
    calls = {"problem_type": "single_label_classification", "return_dict": True, "output_hidden_states": False}
    shape = shape.with_labels(names).changed(drop_path_rate=config.train.drop_path, **calls)
    if shape.num_channels != 3:
        raise ConfigError(f"model.config: num_channels is {shape.num_channels}; images have 3 here")
    student = (LevitForImageClassificationWithTeacher if config.distils else LevitForImageClassification)(shape)
    if start:
        _take_over(student, start, names)
    student.processor = _processor(config.model, start, shape)
    if config.train.freeze == "backbone":
        student.levit.requires_grad_(False)
    return student


def scratch_config(config: StudentConfig) -> LevitConfig:
    """The shape to train from scratch. Raises ConfigError for a field that LevitConfig does not have."""
    base = VARIANTS[config.variant] if config.variant else LevitConfig()
    known = {field.name for field in dataclasses.fields(LevitConfig)}
    if unknown := set(config.config) - known:
        raise ConfigError(f"model.config: unknown field {sorted(unknown)[0]}; known: {', '.join(sorted(known))}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.config.items()}
    try:
        # What lies between stages follows from their widths, so it is derived anew unless it is given.
        return dataclasses.replace(base, **({"down_ops": None} | values))
    except (CheckpointError, TypeError, ValueError, IndexError) as e:
        raise ConfigError(f"model.config: {e}") from None


def _take_over(student: Student, start: Checkpoint, names: list[str]) -> None:
    student.levit.load_state_dict(start.model.levit.state_dict())
    if start.class_names != names:
        return
    for head in student.heads:
        if (trained := getattr(start.model, head, None)) is not None:
            getattr(student, head).load_state_dict(trained.state_dict())


def _processor(config: StudentConfig, start: Checkpoint | None, shape: LevitConfig) -> dict[str, Any]:
    try:
        side, channels = shape.image_size, shape.num_channels
        values = Preprocessing.read((start.processor if start else {}) | config.processor, side, channels)
        return values.fitting(side, channels).to_dict()
    except CheckpointError as e:
        raise ConfigError(f"model.processor: {e}") from None


class Normalise(nn.Module):
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] as `preprocessor_config.json` says (rescale, mean, deviation)."""

    def __init__(self, processor: dict[str, Any]):
        super().__init__()
        for name, numbers in zip(("shift", "scale"), Preprocessing.read(processor).shift_and_scale(), strict=True):
            self.register_buffer(name, torch.from_numpy(numbers).float().view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.shift) * self.scale


class Teacher(nn.Module):
    """A LeViT that says which class each training image is: uint8 [B, H, W, 3] -> class numbers [B]."""

    def __init__(self, checkpoint: Checkpoint, names: list[str]):
        super().__init__()
        if checkpoint.class_names != names:
            differing = next((pair for pair in zip(checkpoint.class_names, names, strict=False) if pair[0] != pair[1]),
                             (f"{len(checkpoint.class_names)} classes", f"{len(names)} classes"))  # fmt: skip
            raise ConfigError(
                f"teacher.checkpoint: {checkpoint.name} has other classes than the target "
                f"({differing[0]!r} is not {differing[1]!r}); a teacher must answer in the target's classes, in order"
            )
        self.model = fold(checkpoint.model, "average", checkpoint.processor)
        self.side = checkpoint.config.image_size

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(self._fit(pixels))[1].argmax(dim=1)

    def _fit(self, pixels: Tensor) -> Tensor:
        """The student's view of the image at the size that the teacher takes."""
        if pixels.shape[1] == self.side:
            return pixels
        images = pixels.permute(0, 3, 1, 2)
        if images.is_cuda:  # torch resizes bytes on CPUs only
            images = images.float()
        larger = functional.interpolate(images, size=(self.side, self.side), mode="bicubic", antialias=True)
        return larger.round().clamp(0, 255).to(torch.uint8) if images.is_cuda else larger


def load_teacher(config: FinetuneConfig, names: list[str]) -> Teacher | None:
    """The teacher that runs on the fly, where the configuration names one."""
    if config.teacher.checkpoint is None:
        return None
    teacher = load_checkpoint(config.teacher.checkpoint, config.teacher.revision)
    check_labels_photographs(teacher)
    return Teacher(teacher, names)
