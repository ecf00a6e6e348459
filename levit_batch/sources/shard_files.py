"""The files that are a source's shards, and, where there are none, which other type of source lies there."""

from levit_batch.errors import SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.storage.find import find_files
from levit_batch.storage.identity import File


def shard_files(config: SourceConfig, endings: tuple[str, ...], leave_out: str | None) -> list[File]:
    """`find_files` of `source.path`. Raises SourceError, which names `source.type` where images or tars are there instead."""
    try:
        return find_files(config.path, endings, leave_out)
    except SourceError as e:
        kind = _other_type(config, leave_out)
        raise SourceError(f"{e}{kind and f'; what is there is read with source.type: {kind}'}") from None


def _other_type(config: SourceConfig, leave_out: str | None) -> str:
    from levit_batch.sources.imagefolder import IMAGE_ENDINGS  # after a mistake only: a run need not load them
    from levit_batch.sources.webdataset import ENDINGS

    for kind, endings in (("imagefolder", IMAGE_ENDINGS), ("webdataset", ENDINGS)):
        try:
            find_files(config.path, endings, leave_out)
        except SourceError:
            continue
        return kind
    return ""
