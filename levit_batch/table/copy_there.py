"""The folder of a copy (`copy.py`): where it may lie, and the files that are in it already."""

import os
from concurrent.futures import ThreadPoolExecutor

from levit_batch.errors import OutputError
from levit_batch.storage.place import Place
from levit_batch.table.apart import is_of_source, lies_in
from levit_batch.table.copy_plan import CopyFile
from levit_batch.table.output import CARD_MARK, COPY_FILE, DATA, Output
from levit_batch.table.write import fingerprint_of, read_record

READERS = 16  # of footers at once
REFUSED = "give another folder"


def require_apart(output: Output, to: Output) -> None:
    """Raises OutputError where a copy in `to` would lie in the table `output`, or among the images that it was made from."""
    if lies_in(to.place, output.place):
        raise OutputError(f"{to}: a copy in few files needs a folder of its own, outside of {output}")
    if is_of_source(to.place.join(DATA, f"00000{to.ending}"), output):
        raise OutputError(f"{to}: lies among what {output} is made from: the next run would take it for images; {REFUSED}")


def files_there(to: Output, fingerprint: str) -> dict[int, CopyFile]:
    """The files of the copy `to` by number. Raises OutputError where it holds something else, or another table's copy."""
    names = [info.base_name for info in to.place.join(DATA).list(recursive=False)]
    names = [name for name in names if not name.startswith((".", "_"))]  # which readers skip, too
    if other := next((name for name in names if not _ours(name, to)), None):
        raise OutputError(f"{to}: data/{other} is no {to.ending} file that `compact --to` wrote; {REFUSED}")
    if other := _foreign(to, bool(names)):
        raise OutputError(f"{to}: holds a {other} that `compact --to` did not write; {REFUSED}")
    with ThreadPoolExecutor(READERS) as pool:
        return {file.number: file for file in pool.map(lambda name: _read(to.place.join(DATA, name), fingerprint), names)}


def _ours(name: str, to: Output) -> bool:
    match = COPY_FILE.fullmatch(name)
    return bool(match) and name == f"{int(match['number']):05d}{to.ending}"


def _foreign(to: Output, copied: bool) -> str | None:
    """What would be written over, or is another job's. copied: there are files of a copy."""
    if to.place.join("job.json").exists():
        return "job.json"
    if copied or card_is_ours(to):
        return None
    return next((name for name in ("metrics.json", "report.html") if to.place.join(name).exists()), None)


def card_is_ours(to: Output) -> bool:
    card = to.place.join("README.md")
    return card.exists() and CARD_MARK.encode() in card.read_bytes()


def _read(at: Place, fingerprint: str) -> CopyFile:
    shards = read_record(at).get("shards")
    if not isinstance(shards, dict) or fingerprint_of(at) != fingerprint:
        raise OutputError(f"{at.url}: a file of another job's table; delete it, or {REFUSED}")
    return CopyFile(int(COPY_FILE.fullmatch(os.path.basename(at.path))["number"]), shards)
