"""What a LeViT is made of: the configuration as Hugging Face publishes it.

No torch here: the command line lists models without loading it.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from levit_batch.errors import CheckpointError
from levit_batch.levit.config_files import ConfigFiles
from levit_batch.levit.config_labels import LABELS, labels_of

STEM_CONVOLUTIONS = 4
PER_STAGE = ("hidden_sizes", "num_attention_heads", "depths", "key_dim", "mlp_ratio", "attention_ratio")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True)
class DownOp:
    """How one stage hands over to the next: an attention whose queries are every `stride`-th point, then an MLP."""

    key_dim: int
    num_heads: int
    attention_ratio: int
    mlp_ratio: int
    stride: int


@dataclass(init=False)
class LevitConfig(ConfigFiles):
    """The fields of `config.json`, with Hugging Face's names and defaults (the defaults are LeViT-128).

    Per-stage fields are tuples of the same length, one entry a stage. Any other keyword is kept as an attribute and
    written to `config.json`, as transformers does. A model takes a copy: neither building it nor training it changes the
    configuration that it was given; `model.config` is its own.

    Args:
        image_size, patch_size: pixels along one side of the (square) input, and of one patch; their quotient is the
            side of the first stage's grid.
        num_channels: colour channels of the input.
        kernel_size, stride, padding: of each of the four convolutions of the stem.
        hidden_sizes, num_attention_heads, depths, key_dim: each stage's width, heads, blocks and query width a head.
        attention_ratio: value width a head, as a multiple of `key_dim`.
        mlp_ratio: hidden width of the MLP, as a multiple of the stage's width; 0 for no MLP.
        down_ops: what is between stages, `("Subsample", key_dim, heads, attention_ratio, mlp_ratio, stride)` each;
            derived as the authors do when not given.
        drop_path_rate: probability in training that one image skips a residual branch.
        initializer_range: standard deviation of fresh linear weights.
        id2label, label2id, num_labels: class names by index; any one of the three determines the others, then as later.
        problem_type: which loss `labels` add, one of PROBLEM_TYPES; None: what the first labels look like.
        output_hidden_states, return_dict: what a model's call does that does not say it.
        architectures: the class names Hugging Face wrote in the file; dtype: that of the weights beside it.

    Raises CheckpointError when the fields contradict each other.
    """

    image_size: int = 224
    num_channels: int = 3
    kernel_size: int = 3
    stride: int = 2
    padding: int = 1
    patch_size: int = 16
    hidden_sizes: tuple[int, ...] = (128, 256, 384)
    num_attention_heads: tuple[int, ...] = (4, 8, 12)
    depths: tuple[int, ...] = (4, 4, 4)
    key_dim: tuple[int, ...] = (16, 16, 16)
    drop_path_rate: float = 0
    mlp_ratio: tuple[int, ...] = (2, 2, 2)
    attention_ratio: tuple[int, ...] = (2, 2, 2)
    initializer_range: float = 0.02
    down_ops: tuple[tuple, ...] | None = None
    id2label: dict[int, str] | None = field(default=None, repr=False)
    label2id: dict[str, int] | None = field(default=None, repr=False)
    num_labels: int | None = None
    problem_type: str | None = field(default=None, repr=False)
    output_hidden_states: bool = field(default=False, repr=False)
    return_dict: bool = field(default=True, repr=False)
    architectures: tuple[str, ...] | None = field(default=None, compare=False)
    dtype: str | None = field(default=None, repr=False, compare=False)

    def __init__(self, **values: Any):
        before = values.pop("torch_dtype", None)  # the name of dtype before transformers 5
        given = {f.name: values.pop(f.name, f.default) for f in dataclasses.fields(self)}
        given["dtype"] = given["dtype"] or before
        labels = labels_of(*(given.pop(name) for name in LABELS))
        for name, value in (given | self._others(values)).items():
            setattr(self, name, value)
        self.__dict__.update(labels, down_ops=self._derived_down_ops())
        if self.problem_type == PROBLEM_TYPES[0] and self.num_labels == 1:
            raise CheckpointError(
                f"LeViT configuration: problem_type {self.problem_type} needs two classes or more; num_labels is 1"
            )
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in LABELS:
            self.__dict__[name] = _READ[name](name, value) if name in _READ else value
        elif name != "num_labels" or value != self.num_labels:
            self.__dict__.update(labels_of(**dict.fromkeys(LABELS) | {name: value}))

    def _derived_down_ops(self) -> tuple[tuple, ...]:
        if self.down_ops is not None:  # transformers leaves its own [""] end marks in files it wrote after a build
            return tuple(tuple(op) for op in self.down_ops if op and op[0])
        pairs = zip(self.hidden_sizes[:-1], self.key_dim[:1] * len(self.hidden_sizes), strict=False)
        return tuple(("Subsample", key_dim, width // key_dim, 4, 2, 2) for width, key_dim in pairs)

    def check(self) -> None:
        """Raises CheckpointError when the fields contradict each other."""
        self._check_numbers()
        stages = len(self.depths)
        for name in PER_STAGE:
            if len(getattr(self, name)) != stages:
                raise CheckpointError(
                    f"LeViT configuration: {name} has {len(getattr(self, name))} entries, depths has {stages}"
                )
        if len(self.down_ops) != stages - 1 or any(len(op) != 6 or op[0] != "Subsample" for op in self.down_ops):
            raise CheckpointError(
                f"LeViT configuration: down_ops must hold {stages - 1} 'Subsample' entries: {self.down_ops}"
            )
        if self.image_size % self.patch_size:
            raise CheckpointError(
                f"LeViT configuration: image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        side = self.image_size // self.patch_size
        if self.stem_sizes()[-1] != side:
            raise CheckpointError(
                f"LeViT configuration: the stem (kernel_size {self.kernel_size}, stride {self.stride}, padding "
                f"{self.padding}) makes a grid of {self.stem_sizes()[-1]} from {self.image_size} pixels, but "
                f"patch_size {self.patch_size} asks for {side}"
            )

    def _check_numbers(self) -> None:
        least = dict.fromkeys(["num_channels", "kernel_size", "stride", *PER_STAGE], 1)
        for name, smallest in (least | {"padding": 0, "mlp_ratio": 0, "depths": 0}).items():
            value = getattr(self, name)
            numbers = value if name in PER_STAGE else (value,)
            if not all(type(number) is int and number >= smallest for number in numbers):
                raise CheckpointError(f"LeViT configuration: {name} must be whole, at least {smallest}: {value!r}")

    def stem_sizes(self) -> list[int]:
        """Side of the feature map after each convolution of the stem."""
        sizes = [self.image_size]
        for _ in range(STEM_CONVOLUTIONS):
            sizes.append((sizes[-1] + 2 * self.padding - self.kernel_size) // self.stride + 1)
        return sizes[1:]

    def stem_widths(self) -> list[int]:
        """Output channels of each convolution of the stem."""
        return [self.hidden_sizes[0] // 8, self.hidden_sizes[0] // 4, self.hidden_sizes[0] // 2, self.hidden_sizes[0]]

    def downs(self) -> list[DownOp]:
        """`down_ops` with names: one entry between each pair of stages."""
        return [DownOp(*op[1:]) for op in self.down_ops]

    def resolutions(self) -> list[int]:
        """Side of each stage's grid of points."""
        sides = [self.image_size // self.patch_size]
        for op in self.downs():
            sides.append((sides[-1] - 1) // op.stride + 1)
        return sides

    @property
    def embedding_size(self) -> int:
        """Width of the pooled features before the heads."""
        return self.hidden_sizes[-1]

    @property
    def class_names(self) -> list[str]:
        return [self.id2label[index] for index in range(self.num_labels)]

    @property
    def has_own_class_names(self) -> bool:
        """Whether the names say more than `LABEL_0`, `LABEL_1`, ..."""
        return any(name != f"LABEL_{index}" for index, name in self.id2label.items())

    def changed(self, **values: Any) -> Self:
        """A copy with other values; one of the three label fields replaces all three."""
        old = LABELS if values.keys() & {*LABELS} else ()
        return type(self)(**{name: value for name, value in vars(self).items() if name not in old} | values)

    def with_labels(self, names: list[str]) -> Self:
        """A copy for other classes."""
        return self.changed(id2label=dict(enumerate(names)))


def _one_side(name: str, value: int | list[int] | tuple[int, int]) -> int:
    sides = list(value) if isinstance(value, list | tuple) else [value]
    if len(set(sides)) != 1 or type(sides[0]) is not int or sides[0] < 1:
        raise CheckpointError(
            f"LeViT configuration: {name} {value} is not square; the attention biases need a square grid"
        )
    return sides[0]


def _stages(name: str, value: Any) -> tuple:
    if not isinstance(value, list | tuple):
        raise CheckpointError(f"LeViT configuration: {name} must hold a number for each stage: {value!r}")
    return tuple(value)


def _problem(name: str, value: str | None) -> str | None:
    if value not in (None, *PROBLEM_TYPES):
        raise CheckpointError(f"LeViT configuration: {name} must be one of {', '.join(PROBLEM_TYPES)}: {value!r}")
    return value


# How a field is read, from the file as from a program.
_READ = dict.fromkeys(PER_STAGE, _stages) | {
    **{"image_size": _one_side, "patch_size": _one_side, "problem_type": _problem},
    "architectures": lambda _, names: None if names is None else tuple(names),
    "dtype": lambda _, dtype: None if dtype is None else str(dtype).removeprefix("torch."),
}
