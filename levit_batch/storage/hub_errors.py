"""What `datasets` and the Hub's client raise, as one line that says what to do."""

import re

from levit_batch.errors import SourceError
from levit_batch.storage.retry import LastingError


def explain(error: BaseException, path: str, revision: str | None) -> SourceError:
    """`error` of resolving the dataset `path` in the user's words."""
    from huggingface_hub import constants

    said = _brief(error)
    page = f"https://huggingface.co/datasets/{path}"
    chain = list(_chain(error))
    if any(type(e).__name__ == "OfflineModeIsEnabled" for e in chain) or constants.is_offline_mode():
        return SourceError(
            f"source.path: {path} is not in the cache and HF_HUB_OFFLINE is set; unset it, or download first"
        )
    if "gated" in said or any(type(e).__name__ == "GatedRepoError" for e in chain):
        return SourceError(
            f"source.path: {path} is gated: accept its conditions at {page}, then log in with `hf auth login` or set "
            "HF_TOKEN to a token that may read it"
        )
    if "scripts are no longer supported" in said or "trust_remote_code" in said:
        return SourceError(
            f"source.path: {path} can only be read by running code from its repository, which is never done ({said}); "
            "use the copy in Parquet, if the Hub made one: source.revision: refs/convert/parquet"
        )
    if outage := next((e for e in chain if isinstance(e, LastingError)), None):
        return SourceError(f"source.path: {path}: the Hub does not answer: {_brief(outage)}; try again later")
    if "Revision" in said:
        return SourceError(f"source.revision: {path} has no branch, tag or commit {revision}")
    if re.search(r"BuilderConfig|[Cc]onfig name", said):
        return SourceError(f"source.name: {said}")
    if type(error).__name__ in ("EmptyDatasetError", "DataFilesNotFoundError"):
        return SourceError(f"source.path: {path} holds no data files that datasets knows: {said}")
    if type(error).__name__ == "DatasetNotFoundError" or isinstance(error, FileNotFoundError):
        return SourceError(
            f"source.path: {path} is not on the Hub, or is private: check the name, and for a private dataset log in "
            f"with `hf auth login` or set HF_TOKEN ({said})"
        )
    return SourceError(f"source.path: {path} cannot be resolved: {type(error).__name__}: {said}")


def _chain(error: BaseException | None):
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
