"""Every knob of a labelling job on one page: what a YAML may say, with types, defaults and meaning.

The models are frozen and refuse unknown keys. `load_config.py` reads YAML into them and words the errors.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


class SourceConfig(Section):
    """Where the images are."""

    type: Literal["parquet", "huggingface", "arrow", "imagefolder", "webdataset"] = Field(
        "parquet", description="`parquet`, `huggingface`, `arrow`, `imagefolder` or `webdataset`."
    )
    path: str | list[str] = Field(
        description="File, folder, glob or URL (local, s3://, gs://, abfs://, hf://, https://), or a list; "
        "for huggingface the repository id. Relative paths start at the folder the command runs in."
    )
    name: str | None = Field(None, description="Hugging Face configuration (subset).")
    split: str | None = Field(None, description="Split of a Hugging Face dataset, or of a saved `DatasetDict`.")
    revision: str | None = Field(None, description="Branch, tag or commit; what it resolved to is recorded.")
    image_column: str = Field(
        "image", description="struct{bytes, path}, binary, or a string path under `root` (or URL)."
    )
    root: str | None = Field(
        None, description="Where image paths are looked up, `/` for absolute ones; a path may never leave it."
    )
    target_column: str | None = Field(None, description="The truth, where the data has it; accuracy is then reported.")
    class_names: str | None = Field(None, description="Text file with the target's class names, one a line.")
    keep_columns: list[str] = Field(
        [], description="Carried to the output unchanged; `image.path` reaches in a struct."
    )
    limit: PositiveInt | None = Field(None, description="Only the first N rows of the plan.")
    decode_timeout: Annotated[float, Field(gt=0)] = Field(60.0, description="Seconds one image may take to decode.")
    max_image_pixels: PositiveInt = Field(178_956_970, description="Larger images become error rows.")
    max_image_bytes: PositiveInt = Field(1 << 28, description="Larger files, tar samples and cells become error rows.")
    allow_urls: bool = Field(False, description="Fetch http(s) URLs found in the image column.")
    url_hosts: list[str] = Field([], description="Hosts that URLs may name; empty: every public host.")
    url_max_bytes: PositiveInt = Field(50_000_000, description="A URL that sends more is an error row.")
    url_timeout: Annotated[float, Field(gt=0)] = Field(
        20.0, description="Seconds one URL may take, with all its redirects and tries."
    )


class ModelConfig(Section):
    """Which LeViT, and how it is run."""

    checkpoint: str = Field(
        description="Hub id (`facebook/levit-128S`, `timm/levit_128s.fb_dist_in1k`), local folder, or file "
        "(`.safetensors`, `.bin`, `.pth`)."
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub; what it resolved to is recorded.")
    heads: Literal["average", "class", "distill"] = Field(
        "average", description="`average` of both heads, `class` or `distill`."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, float16 on a GPU."
    )
    backend: Literal["auto", "torch", "openvino", "onnxruntime"] = Field(
        "auto", description="`torch`, `openvino`, `onnxruntime`, or `auto`: the fastest that is installed."
    )
    compile: bool = Field(False, description="Use `torch.compile`: half a minute at each start; needs a compiler.")


class PreprocessConfig(Section):
    """How bytes become pixels."""

    mode: Literal["exact", "fast"] = Field(
        "exact", description="`exact`, or `fast`: large JPEGs decoded at a fraction; labels may differ."
    )


class PredictConfig(Section):
    """What is written about each image."""

    top_k: PositiveInt = Field(5, description="How many labels and scores a row gets.")
    embeddings: Literal["float16", "float32", "none"] = Field("float16", description="`float16`, `float32` or `none`.")
    logits: bool = Field(False, description="The whole logit vector as a fixed-size list.")
    per_head: bool = Field(False, description="Write `head_label`, `distill_label`, `head_divergence`.")
    hash: bool = Field(False, description="Write `image_hash` and `image_phash`, which tell copies.")


class OutputConfig(Section):
    """Where the tables go."""

    path: str = Field(description="Folder or URL (local, s3://, gs://, abfs://).")
    format: Literal["parquet", "arrow"] = Field("parquet", description="`parquet`, or `arrow` (Arrow IPC).")
    max_error_rate: Fraction = Field(0.01, description="More error rows than this end the command with exit code 3.")
    max_gone_rate: Fraction = Field(
        0.1, description="A run that would drop more rows of files that are gone from an image folder stops."
    )
    shared: bool = Field(False, description="A local path is mounted on every node of the cluster.")

    @field_validator("path")
    @classmethod
    def _can_be_written(cls, path: str) -> str:
        if not path.strip():
            raise ValueError("a folder or a URL, not empty")
        if path.lower().startswith("hf://buckets/"):
            raise ValueError("a local path: a bucket is written to where it is mounted (hf jobs: --volume)")
        if path.lower().startswith("hf://"):
            raise ValueError("elsewhere, as each chunk would be a commit there; then `levit-batch push OUTPUT REPO`")
        if path.lower().startswith(("http://", "https://")):
            raise ValueError("a folder or a store: the web can only be read")
        return path


class ReplicaRange(Section):
    min: PositiveInt = 1
    max: PositiveInt

    @model_validator(mode="after")
    def _ordered(self):
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        return self


class ComputeConfig(Section):
    """What it runs on."""

    engine: Literal["auto", "ray", "local"] = Field(
        "auto", description="`ray`: Ray Data; `local`: processes of this machine; `auto`: local for at most 32 chunks on CPUs."
    )
    address: str | None = Field(
        None, description="`null`: start Ray here; `auto` or `HOST:PORT`: join the cluster this machine is in."
    )
    replicas: Literal["auto"] | PositiveInt | ReplicaRange = Field(
        "auto", description="A number, `{min: 1, max: 8}`, or `auto`: one a core, or one a GPU."
    )
    gpus_per_replica: Literal["auto"] | Fraction = Field(
        "auto", description="0, 1 or a fraction; `auto`: 1 where there is a GPU, else 0."
    )
    accelerator_type: str | None = Field(None, description="Ray's name of the GPU type, for example A100.")
    decode_cpus: Literal["auto"] | PositiveInt = Field("auto", description="CPU tasks that decode, per GPU replica.")
    batch_size: Literal["auto"] | PositiveInt = Field(
        "auto", description="Images in one forward pass; `auto`: 8 on a CPU, 256 on a GPU."
    )
    chunk_rows: PositiveInt = Field(2048, description="Most rows in one chunk: one task, one output file.")


class DriftConfig(Section):
    """When tonight's rows count as different from the nights before. pipelines/README.md, Drift, gives the reasons."""

    label_psi: Annotated[float, Field(gt=0)] = Field(0.25, description="Population stability index of the labels.")
    label_js: Fraction = Field(0.2, description="Jensen-Shannon distance (base 2) of the labels.")
    score_ks: Fraction = Field(0.15, description="Kolmogorov-Smirnov statistic of the scores.")
    embedding_cosine: Annotated[float, Field(gt=0)] = Field(0.1, description="1 - cosine of the mean embeddings.")
    error_rate: Fraction = Field(0.02, description="Rise of the share of error rows.")
    head_divergence: Fraction = Field(
        0.05, description="Rise of the heads' mean divergence, in bits (predict.per_head)."
    )
    min_rows: PositiveInt = Field(200, description="Runs with fewer new rows are not judged.")
    history: PositiveInt = Field(14, description="How many earlier runs make the reference.")


class NotifyConfig(Section):
    """Who is told how a nightly run ended."""

    webhook: str | None = Field(None, description="URL that gets a JSON object by POST.")
    command: list[str] | None = Field(None, description="Program and arguments; gets the JSON on standard input.")
    on: list[Literal["success", "failure", "drift"]] = Field(["failure", "drift"], description="When they are told.")
    timeout: Annotated[float, Field(gt=0)] = Field(10.0, description="Seconds they may take.")


class JobConfig(Section):
    """One labelling job."""

    pipeline: Literal["label"] = Field("label", description="The recipe; `label` is the one of this file.")
    source: SourceConfig
    model: ModelConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    predict: PredictConfig = PredictConfig()
    output: OutputConfig
    compute: ComputeConfig = ComputeConfig()
    drift: DriftConfig = DriftConfig()
    notify: NotifyConfig = NotifyConfig()
