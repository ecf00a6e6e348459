"""The Hugging Face Hub's client, made patient: every request of this process waits out throttling and outages.

Without this a server error in the middle of resolving a dataset can pass for a file that is not there (a README with the
class names, say), and the job would go on with another dataset than it names.
"""

import functools
import re
from typing import Any
from urllib.parse import urlsplit

from levit_batch.errors import LastingError, SourceError, brief, causes
from levit_batch.storage.retry import PASSING_STATUS, retry

LOGIN = "log in with `hf auth login` or set HF_TOKEN to a token that may read it"
TROUBLES = {  # names of what `huggingface_hub` and `datasets` raise, the more telling first
    "offline": {"OfflineModeIsEnabled"},
    "gated": {"GatedRepoError"},
    "silent": {"LastingError"},
    "revision": {"RevisionNotFoundError"},
    "empty": {"EmptyDatasetError", "DataFilesNotFoundError"},
    "uncached": {"LocalEntryNotFoundError"},
    "missing": {"RepositoryNotFoundError", "DatasetNotFoundError"},
}


@functools.cache
def patient_hub() -> None:
    """Make `huggingface_hub` (and `datasets`, which uses it) try again what may pass, with jitter, honouring Retry-After.

    What lasts is raised as LastingError, an OSError.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made = default_client_factory()
        made.send = functools.partial(_send, made.send)
        return made

    set_client_factory(client)


def _send(send: Any, request: Any, **options: Any) -> Any:
    def once() -> Any:
        answer = send(request, **options)
        if answer.status_code in PASSING_STATUS:
            answer.close()
            raise _PassingAnswer(request, answer)
        return answer

    replayable = type(request.stream).__name__ == "ByteStream"  # an upload that is generated cannot be sent twice
    return retry(once) if replayable and _is_hub(request.url.host) else send(request, **options)


def _is_hub(host: str) -> bool:
    """Not the other servers that `datasets` asks things it can do without (download counts, the dataset viewer)."""
    from huggingface_hub import constants

    return host == urlsplit(constants.ENDPOINT).hostname


class _PassingAnswer(OSError):
    def __init__(self, request: Any, answer: Any):
        where = f"{request.url.scheme}://{request.url.host}{request.url.path}"
        super().__init__(f"the server answered {answer.status_code} to {request.method} {where}")
        self.response = answer


def trouble(error: BaseException) -> str:
    """Which of TROUBLES `error`, or what led to it, is (`silent`: the Hub does not answer), or "" for none of them."""
    names = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    return next((word for word, telling in TROUBLES.items() if names & telling), "")


def explain(error: BaseException, path: str, revision: str | None) -> SourceError:
    """`error` of resolving the dataset `path`, in one line that says what to do."""
    from huggingface_hub import constants

    text, what = brief(error, 400), trouble(error)
    if what == "offline" or constants.is_offline_mode():
        return SourceError(
            f"source.path: {path} is not in the cache and HF_HUB_OFFLINE is set; unset it, or download first"
        )
    if what == "gated" or "gated" in text:
        page = f"https://huggingface.co/datasets/{path}"
        return SourceError(f"source.path: {path} is gated: accept its conditions at {page}, then {LOGIN}")
    if "scripts are no longer supported" in text or "trust_remote_code" in text:
        return SourceError(
            f"source.path: {path} can only be read by running code from its repository, which is never done ({text}); "
            "use the copy in Parquet, if the Hub made one: source.revision: refs/convert/parquet"
        )
    if what == "silent":
        outage = next(cause for cause in causes(error) if isinstance(cause, LastingError))
        return SourceError(f"source.path: {path}: the Hub does not answer: {brief(outage)}; try again later")
    if what == "revision" or "Revision" in text:
        return SourceError(f"source.revision: {path} has no branch, tag or commit {revision}")
    if re.search(r"BuilderConfig|[Cc]onfig name", text):
        return SourceError(f"source.name: {text}")
    if what == "empty":
        return SourceError(f"source.path: {path} holds no data files that datasets knows: {text}")
    if what == "missing" or isinstance(error, FileNotFoundError):
        return SourceError(
            f"source.path: {path} is not on the Hub, or is private: check the name, and for a private dataset {LOGIN} ({text})"
        )
    return SourceError(f"source.path: {path} cannot be resolved: {type(error).__name__}: {text}")
