"""The Hugging Face Hub's client, made patient: every request of this process waits out throttling and outages.

Without this a server error in the middle of resolving a dataset can pass for a file that is not there (a README with the
class names, say), and the job would go on with another dataset than it names.
"""

import functools
from typing import Any
from urllib.parse import urlsplit

from levit_batch.storage.retry import PASSING_STATUS, retry


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
            raise PassingAnswer(request, answer)
        return answer

    replayable = type(request.stream).__name__ == "ByteStream"  # an upload that is generated cannot be sent twice
    return retry(once) if replayable and _is_hub(request.url.host) else send(request, **options)


def _is_hub(host: str) -> bool:
    """Not the other servers that `datasets` asks things it can do without (download counts, the dataset viewer)."""
    from huggingface_hub import constants

    return host == urlsplit(constants.ENDPOINT).hostname


class PassingAnswer(OSError):
    def __init__(self, request: Any, answer: Any):
        where = f"{request.url.scheme}://{request.url.host}{request.url.path}"
        super().__init__(f"the server answered {answer.status_code} to {request.method} {where}")
        self.response = answer
