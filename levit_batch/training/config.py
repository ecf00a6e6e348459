"""Every knob of a fine-tuning on one page, in the style of `config.py`; `source` is the section that labelling has too."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from levit_batch.job.config import Fraction, PositiveInt, Section, SourceConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Report = Callable[[dict[str, Any]], None]  # takes each event of a training: a step's, or a finished epoch's


class TrainSourceConfig(SourceConfig):
    """Where the images and their truth are; `target_column` is required here."""

    type: Literal["parquet", "huggingface", "arrow", "imagefolder", "webdataset", "output"] = Field(
        "parquet",
        description="As for labelling, or `output`: the embeddings of a table that `levit-batch run` wrote to `path`.",
    )
    teacher_column: str | None = Field(
        None,
        description="What a teacher says of each image, as class numbers or names: for instance `label` of a table "
        "that `levit-batch run` wrote with a larger model. Trains both heads.",
    )
    truth: str | None = Field(
        None,
        description="For type `output`: a Parquet table that has the target_column, or a project's JSON from Label Studio, in "
        "place of the output's own.",
    )
    truth_on: list[str] | None = Field(None, description="Columns by which rows find their truth; null: shard, row.")

    @model_validator(mode="after")
    def _has_target(self):
        if self.target_column is None:
            raise ValueError("target_column is required for training: name the column that holds the truth")
        if self.type == "output" and not isinstance(self.path, str):
            raise ValueError("path must be the folder of one output for type output")
        if self.type != "output" and (self.truth or self.truth_on):
            raise ValueError("truth and truth_on go with type output")
        return self


class ValidationConfig(Section):
    """Which rows are never trained on, and measure the student after each epoch."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1,
        description="Share of the source's rows, chosen by a hash of their place; not used with `source`. Finding them "
        "reads the source again where it does not fit train.cache_bytes: give a large set a validation.source.",
    )
    source: TrainSourceConfig | None = Field(None, description="Other images to validate on.")


class StudentConfig(Section):
    """What is trained: a checkpoint, or fresh weights of a published or own shape."""

    checkpoint: str | None = Field(None, description="Hub id, folder or file to start from; null: from scratch.")
    revision: str | None = None
    variant: Literal["128S", "128", "192", "256", "384"] | None = Field(None, description="From scratch: this size.")
    config: dict[str, Any] = Field({}, description="From scratch: fields of LevitConfig that differ from the variant.")
    processor: dict[str, Any] = Field(
        {}, description="Fields of preprocessor_config.json that differ from the checkpoint's (or LeViT's) own."
    )

    @model_validator(mode="after")
    def _one_start(self):
        if self.checkpoint is not None and (self.variant or self.config):
            raise ValueError("checkpoint already says the shape; leave out variant and config, or the checkpoint")
        if self.checkpoint is None and not (self.variant or self.config):
            raise ValueError("name a checkpoint to start from, or a variant (or config) to train from scratch")
        return self


class TeacherConfig(Section):
    """A model that answers every training image on the fly; its hard labels train the second head."""

    checkpoint: str | None = None
    revision: str | None = None


class AugmentConfig(Section):
    """What happens to a training image between decode and model; validation images take the labelling path."""

    crop_scale: tuple[Fraction, Fraction] | None = Field(
        (0.35, 1.0), description="Share of the image's area that a random crop keeps; null: no random crop."
    )
    crop_ratio: tuple[Positive, Positive] = Field((0.75, 4 / 3), description="Width by height of the random crop.")
    flip: Fraction = Field(0.5, description="How often an image is mirrored; 0 for digits, letters, left and right.")

    @model_validator(mode="after")
    def _ordered(self):
        for name, pair in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if pair and not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name} {list(pair)} must be a smaller and a larger number above 0")
        return self


class TrainConfig(Section):
    """How the student learns."""

    epochs: PositiveInt = 30
    batch_size: PositiveInt = Field(64, description="Images in one step, over all workers.")
    learning_rate: Positive = Field(5e-4, description="Of AdamW, after the warm-up.")
    weight_decay: NotNegative = Field(0.025, description="On weights; never on biases, norms and attention biases.")
    warmup_epochs: NotNegative = Field(1.0, description="The learning rate rises linearly from 0 over these.")
    final_learning_rate: NotNegative = Field(1e-6, description="Where the cosine ends with the last epoch.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="On the target, not the teacher.")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="How often an image skips a branch.")
    clip_gradient: Positive | None = Field(None, description="Largest norm of the gradient.")
    freeze: Literal["none", "backbone"] = Field("none", description="backbone: only the heads learn (linear probe).")
    batch_norm: Literal["synced", "frozen"] = Field(
        "synced",
        description="Statistics in training: of the whole batch over all workers, or frozen, as the checkpoint has them.",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: automatic mixed precision.")
    early_stopping: PositiveInt | None = Field(None, description="Stop after so many epochs without a better one.")
    keep: Literal["best", "last"] = Field("best", description="Which epoch's weights are the result.")
    shuffle_rows: PositiveInt = Field(8192, description="Encoded images that the shuffle holds, in each worker.")
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        1_000_000_000, description="Encoded images that stay in memory after the first epoch, in each worker."
    )
    class_weights: Literal["balanced"] | None = Field(
        None, description="For source.type output: balanced draws rows of rare classes as often as those of others."
    )
    save_steps: PositiveInt = Field(1000, description="The training state is saved so often, and after each epoch.")
    seed: Annotated[int, Field(ge=0)] = 0


class TrainOutputConfig(Section):
    """The checkpoint folder. Several workers on several machines need it on a disk that all of them share."""

    path: str


class WorkersConfig(Section):
    """What it runs on."""

    address: str | None = Field(None, description="null: start Ray here; auto or HOST:PORT: join a cluster.")
    workers: PositiveInt = Field(1, description="More than one goes through Ray Train.")
    gpus_per_worker: Literal["auto"] | Annotated[int, Field(ge=0, le=1)] = Field(
        "auto", description="auto: 1 where there is a GPU, else 0."
    )
    threads: Literal["auto"] | PositiveInt = Field("auto", description="CPU threads of one worker.")
    chunk_rows: PositiveInt = Field(1024, description="Most rows read at once.")


class FinetuneConfig(Section):
    """One fine-tuning."""

    pipeline: Literal["finetune"] = "finetune"
    source: TrainSourceConfig
    validation: ValidationConfig = ValidationConfig()
    model: StudentConfig
    teacher: TeacherConfig = TeacherConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    output: TrainOutputConfig
    compute: WorkersConfig = WorkersConfig()

    @property
    def distils(self) -> bool:
        """Whether both heads are trained, the second by a teacher."""
        return self.source.teacher_column is not None or self.teacher.checkpoint is not None

    @property
    def validates(self) -> bool:
        return self.validation.source is not None or self.validation.fraction > 0

    @model_validator(mode="after")
    def _probe(self):
        stored = self.source.type == "output"
        if self.validation.source and (self.validation.source.type == "output") != stored:
            raise ValueError("source and validation.source must both be of type output, or neither")
        if stored and (self.train.freeze != "backbone" or self.model.checkpoint is None):
            raise ValueError(
                "source.type output trains heads on embeddings: set train.freeze to backbone, and model.checkpoint to the "
                "checkpoint that made them"
            )
        if self.train.class_weights and not stored:
            raise ValueError("train.class_weights goes with source.type output")
        if stored and (self.teacher.checkpoint or self.compute.workers > 1 or self.model.processor):
            raise ValueError(
                "source.type output has no images: leave out teacher.checkpoint and model.processor, and keep compute.workers 1"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self):
        if self.source.teacher_column and self.teacher.checkpoint:
            raise ValueError("source.teacher_column and teacher.checkpoint are two teachers; keep one")
        if self.train.early_stopping and not self.validates:
            raise ValueError("train.early_stopping needs validation.fraction above 0, or a validation.source")
        if self.train.batch_size % self.compute.workers or self.train.batch_size // self.compute.workers < 2:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} must give each of {self.compute.workers} workers the same "
                "number of images, two or more"
            )
        return self
