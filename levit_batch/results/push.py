"""An output to the Hugging Face Hub, as a dataset repository."""

import glob
import itertools
import os
import re
from typing import TYPE_CHECKING, Any

from levit_batch.errors import LastingError, OutputError, UserError, brief
from levit_batch.storage.hub import patient_hub
from levit_batch.storage.redact import redact
from levit_batch.storage.retry import passing, retry
from levit_batch.table.output import CHUNK_FILE, DATA, ENDINGS, FOLDER, MANIFEST, Output
from levit_batch.table.read import require_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CHUNK_PATH = re.compile(f"{DATA}/{FOLDER.pattern}/{CHUNK_FILE.pattern}")
FILES = ["README.md", "metrics.json", "report.html", "job.json"]


def push(output: Output, repo: str, private: bool = False, message: str = "Update labels") -> str:
    """Upload the tables, card, metrics, page and job of `output` to the dataset `repo`, made if need be; returns its URL.

    An upload that was cut short goes on where it stopped: the Hub knows what it has. Chunk files of ours that the
    output no longer has are deleted in the same go; nothing else in the repository is. Raises OutputError when the
    output is not finished, and UserError when the Hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    require_files(output)
    missing = [name for name in FILES if not output.place.join(name).exists()]
    if missing:
        raise OutputError(f"push: {output} has no {', '.join(missing)}; `levit-batch evaluate {output}` writes them")
    if outside := _outside(output):
        raise OutputError(f"push: {outside} leads out of {output}; what it leads to is not uploaded: put the file itself there")
    if not get_token():
        raise UserError("push: no Hugging Face token; log in with `hf auth login`, or set HF_TOKEN to one that may write")
    patient_hub()
    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        (_upload_folder if output.place.local else _upload_files)(api, url.repo_id, output, message)
    except Exception as e:
        raise _refused(e, repo) from e
    return str(url)


def _outside(output: Output) -> str | None:
    """What would go up that is a link to somewhere else, as in a folder that somebody else made; None where there is none."""
    if not output.place.local:
        return None
    root = os.path.realpath(output.place.path)
    inside = glob.iglob(f"{glob.escape(root)}/data/**", recursive=True)
    names = itertools.chain(inside, (os.path.join(root, name) for name in ("data", MANIFEST, *FILES)))
    links = (name for name in names if os.path.islink(name))
    return next((name for name in links if os.path.commonpath([os.path.realpath(name), root]) != root), None)


def _upload_folder(api: "HfApi", repo: str, output: Output, message: str) -> None:
    api.upload_folder(
        repo_id=repo,
        repo_type="dataset",
        folder_path=output.place.path,
        allow_patterns=[f"data/*{output.ending}", MANIFEST, *FILES],
        delete_patterns=[f"{DATA}/*/[0-9]*-*.????????{ending}" for ending in ENDINGS.values()],
        commit_message=message,
    )


def _upload_files(api: "HfApi", repo: str, output: Output, message: str) -> None:
    """From a store, file by file through this machine's memory, then all in one commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = [f"{DATA}/{folder}/{file.name}" for folder, files in output.written().items() for file in files]
    names += [name for name in (MANIFEST, *FILES) if output.place.join(name).exists()]
    changes: list[CommitOperationAdd | CommitOperationDelete] = []
    for name in names:
        addition = CommitOperationAdd(name, retry(output.place.join(name).read_bytes))
        api.preupload_lfs_files(repo, additions=[addition], repo_type="dataset")  # lets go of the bytes
        changes.append(addition)
    old = {name for name in api.list_repo_files(repo, repo_type="dataset") if CHUNK_PATH.fullmatch(name)}
    changes += [CommitOperationDelete(name) for name in sorted(old - {*names})]
    api.create_commit(repo, changes, commit_message=message, repo_type="dataset")


def _refused(error: Exception, repo: str) -> Exception:
    """What the Hub said in one line; an error that is not the Hub's stays as it is."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HFValidationError):
        return UserError(
            f"push: {repo} is not a repository name ({redact(brief(error))}); it is USER/NAME or ORGANISATION/NAME"
        )
    if isinstance(error, HfHubHTTPError):
        status: Any = getattr(error.response, "status_code", None)
        hint = {401: "the token is not valid", 403: "the token may not write there"}.get(
            status, "try again: it goes on"
        )
        return UserError(f"push: the Hub refused {repo} ({redact(brief(error))}); {hint}")
    if passing(error) or isinstance(error, LastingError):
        return UserError(
            f"push: the Hub does not answer ({redact(brief(error))}); try again: the upload goes on where it stopped"
        )
    return error
