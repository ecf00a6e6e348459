"""The runs of an output held against its table: what those wrote that were cut off before they could say so.

A run counts rows as its replicas tell of them: one that is interrupted may miss the last of them, and one that is killed leaves
no record. The manifest names each file's run; `compact` merges files of several runs, so what it says is written down before.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from levit_batch.table.books import up_to_date
from levit_batch.table.lock import held
from levit_batch.table.manifest import Manifest
from levit_batch.table.output import Output
from levit_batch.table.read import run_names, runs_of

CUT_OFF = ("interrupted", "failed", "killed")  # states of runs that did not come to their end
COUNTED = "counted"  # in the record of such a run: its rows were held against the table
NAME = re.compile(r"\d{8}T\d{6}\.\d{1,6}Z")  # of a run; a manifest that somebody else made leads nowhere else


def history(output: Output, last: int) -> list[dict[str, Any]]:
    """The records of the `last` runs, oldest first, each with its name as `name`. Every row of the table is in one. Nothing is
    written."""
    records = {record["name"]: record for record in runs_of(output, last)}
    found = {record["name"]: record for record in cut_off(output, up_to_date(output))}
    if found and held(output.place) and found[max(found)]["state"] == "killed":
        found[max(found)]["state"] = "running"
    return [record for _, record in sorted((records | found).items())][-last:]


def write_down(output: Output, manifest: Manifest, before: str | None = None) -> list[dict[str, Any]]:
    """Correct the records of `cut_off` runs, write those that are missing, and return them all."""
    found = [*cut_off(output, manifest, before)]
    for record in found:
        if not record.get(COUNTED):
            record[COUNTED] = True
            output.write_json(f"runs/{record['name']}.json", {key: record[key] for key in record if key != "name"})
    return found


def cut_off(output: Output, manifest: Manifest, before: str | None = None) -> Iterator[dict[str, Any]]:
    """The records, latest first, of runs that were cut off since the last that was not, with the rows that the table has of each.

    before: the name of the run that looks; later ones do not count.
    """
    written, recorded = files_by_run(manifest), set(run_names(output))
    for name in sorted(recorded | written.keys(), reverse=True):
        if before is not None and name >= before:
            continue
        record = (output.read_json(f"runs/{name}.json") if name in recorded else None) or _killed(name)
        if record.get("state") not in CUT_OFF:
            return
        yield _counted(record, written.get(name)) | {"name": name}


def files_by_run(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Rows, errors and chunks that the table has of each run."""
    sums = manifest.files.filter(pc.is_valid(manifest.files["run"])).group_by("run")
    sums = sums.aggregate([("rows", "sum"), ("errors", "sum"), ("path", "count")]).to_pylist()
    return {
        one["run"]: {"rows": one["rows_sum"], "errors": one["errors_sum"], "chunks": one["path_count"]}
        for one in sums
        if NAME.fullmatch(one["run"])
    }


def _counted(record: dict[str, Any], there: dict[str, int] | None) -> dict[str, Any]:
    """What it labelled aside is in its record only, what came after its last word in the table only."""
    rows, seconds = record.get("rows") or 0, record.get("seconds")
    if record.get(COUNTED) or there is None or there["rows"] <= rows:
        return record
    return record | {
        "rows": there["rows"],
        "chunks": there["chunks"],
        "error_rate": there["errors"] / there["rows"],
        "images_per_second": there["rows"] / seconds if seconds else None,
    }


def _killed(name: str) -> dict[str, Any]:
    """The record of a run that left none; the time is in its name."""
    day, clock = name.removesuffix("Z").split("T")
    started = datetime.strptime(f"{day} {clock}", "%Y%m%d %H%M%S.%f").replace(tzinfo=UTC)
    return {
        "started": started.isoformat(timespec="milliseconds"), "ended": None, "state": "killed", "rows": 0, "chunks": 0,
        "errors": {}, "error_rate": 0.0, "seconds": None, "images_per_second": None, "skipped": {"chunks": None, "rows": None},
        "shards": {}, "failed": [], "stats": None, "drift": None,
    }  # fmt: skip
