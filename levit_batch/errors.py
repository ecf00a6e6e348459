"""Every error this package raises on purpose. Each takes one string, so that it crosses a Ray process boundary intact.

LevitBatchError
├── UserError            something the user can mend: exit code 2
│   ├── ConfigError      the YAML, a --set, an environment variable
│   ├── SourceError      the images: not found, not readable, wrong column, no permission
│   ├── CheckpointError  the weights: not found, not a LeViT, missing or unknown tensors
│   └── OutputError      the output folder: holds another job, has not what is asked of it
│       ├── LockedError  another run holds it
│       └── RefusedError its store takes nothing more
├── JobError             the job itself failed: exit code 1
├── DeviceLostError      a GPU fails every call of this process from now on: the replica ends, and another is started
└── RowError             one image: never leaves the row it belongs to
OSError
└── LastingError         a store or a server that failed for good: no further attempt is made

Two more are signals between a few modules: `pipelines.interrupt.Interrupted` and `pipelines.cluster.supervise.ReplicasLost`.
A name with an underscore never leaves its module.
"""

from collections.abc import Iterator


class LevitBatchError(Exception):
    """Base of all errors raised on purpose; the message says what, where and what to do."""

    exit_code = 1


class UserError(LevitBatchError):
    """The user's configuration, source, checkpoint or output is wrong."""

    exit_code = 2


class ConfigError(UserError):
    pass


class SourceError(UserError):
    pass


class CheckpointError(UserError):
    pass


class OutputError(UserError):
    pass


class LockedError(OutputError):
    """Another run holds the output."""


class RefusedError(OutputError):
    """The output cannot be written to, and will not be by itself."""


class JobError(LevitBatchError):
    """The job could not finish although nothing in its configuration is wrong."""


class DeviceLostError(LevitBatchError):
    """The GPU answers this process no more."""


class RowError(LevitBatchError):
    """Why one image has no prediction, as `kind: message`; `kind` is one of ROW_ERROR_KINDS."""

    def __init__(self, text: str):
        super().__init__(text)
        self.kind = text.split(":", 1)[0]


class LastingError(OSError):
    """A read that failed, was tried again as often as makes sense, and is not to be tried once more."""


def brief(error: object, most: int = 300) -> str:
    """What `error` says, in one line; its type where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and all that led to it, the nearest first: what it was raised from (Ray says `cause`), or while handling."""
    rest, seen = [error], set()
    while rest:
        if isinstance(one := rest.pop(0), BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            rest += [one.__cause__, getattr(one, "cause", None), one.__context__]


ROW_ERROR_KINDS = {
    "null": "the image column is null",
    "empty": "zero bytes",
    "missing": "the file that the path names does not exist",
    "forbidden": "the path leaves `source.root`, or the URL is not allowed",
    "unreadable": "the file or URL exists but could not be read, or is larger than is allowed",
    "decode": "the bytes are not an image, or are damaged beyond decoding",
    "truncated": "the image ends before its data does",
    "bomb": "more pixels than `source.max_image_pixels`",
    "timeout": "decoding took longer than `source.decode_timeout`",
    "crashed": "decoding killed its process",
    "predict": "the model gave values that are not finite",
}
