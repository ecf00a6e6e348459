"""`--retry-errors`: what a run labels again of what is done."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import Any

import pyarrow.compute as pc

from levit_batch.job.chunks import Chunk
from levit_batch.table.live import Live
from levit_batch.table.merge import cut_out, parts_of
from levit_batch.table.output import DATA, STAGING, Output, folder_of, written_of
from levit_batch.table.plan import Plan, Replacement
from levit_batch.table.write import read_record

THREADS = 16


def reopen_errors(plan: Plan, output: Output) -> None:
    """`--retry-errors`: finished chunks that hold error rows become pending again, as their files have them."""
    fine = fine_files(plan.live)
    unsure = [chunk for chunk in plan.done if chunk.staged or f"{DATA}/{output.chunk_name(chunk)}" not in fine]
    with ThreadPoolExecutor(THREADS) as pool:
        records = list(pool.map(lambda chunk: read_record(output.chunk_place(chunk)), unsure))
    bad = {chunk: record for chunk, record in zip(unsure, records, strict=True) if record["errors"]}
    plan.done.discard(bad)
    for chunk, record in bad.items():
        if len(parts_of(record)) > 1 and not chunk.staged:
            _reopen_parts(plan, output, chunk, parts_of(record))
            continue
        plan.pending.append(chunk)
        plan.done_rows -= record["rows"]
        if record.get("stats"):
            plan.before[f"{DATA}/{output.chunk_name(chunk)}"] = record["stats"]
    _stage_beside(plan, output)
    # One that was killed here may have left the same names, which the plan knew no use for.
    staged = {output.place.join(STAGING, at, name).path for at, one in plan.replacements.items() for name in one.names}
    plan.garbage = [file for file in plan.garbage if file.path not in staged]


def _reopen_parts(plan: Plan, output: Output, merged: Chunk, parts: list[list[Any]]) -> None:
    """Of a merged file only the chunks with error rows are labelled again: its other rows are staged beside them."""
    folder = folder_of(merged.shard)
    file = written_of(output.file_name(merged))
    again = [replace(merged, first=first, stop=stop, staged=True) for first, stop, errors, *_ in parts if errors]
    names = {cut_out(output, folder, file, rows[0][0], rows[-1][1]) for rows in runs_of_good(parts)}
    before = plan.replacements.get(folder)
    others = before.names if before else {one.name for one in plan.live[folder]}
    names |= (others - {file.name}) | {output.file_name(chunk) for chunk in again}
    plan.replacements[folder] = Replacement(frozenset(names), before.whole if before else True)
    plan.pending += again
    plan.done_rows -= sum(chunk.rows for chunk in again)


def runs_of_good(parts: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Parts without error rows that follow each other."""
    for errors, run in groupby(parts, key=lambda part: bool(part[2])):
        if not errors:
            yield list(run)


def fine_files(live: Live) -> set[str]:
    """The paths of the files that the manifest knows to hold no error row."""
    if live.manifest is None:
        return set()
    files = live.manifest.files.filter(pc.equal(live.manifest.files["errors"], 0))
    return {path for path in files["path"].to_pylist() if path.split("/")[1] in live.known}


def _stage_beside(plan: Plan, output: Output) -> None:
    """What is written into a folder that is replaced is staged, too: all but files that are labelled again under their names."""
    for i, chunk in enumerate(plan.pending):
        replacement = None if chunk.staged else plan.replacements.get(folder_of(chunk.shard))
        if replacement and output.file_name(chunk) not in replacement.names:
            plan.pending[i] = replace(chunk, staged=True)
            names = replacement.names | {output.file_name(chunk)}
            plan.replacements[folder_of(chunk.shard)] = replace(replacement, names=names)
