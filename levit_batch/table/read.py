"""A finished output, read back: which files, runs and rows it has, and only the columns asked for."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.job.config import OutputConfig
from levit_batch.job.row import check_version
from levit_batch.storage.place import Place
from levit_batch.table.live import look
from levit_batch.table.output import CHUNK_FILE, DATA, Output, Written, written_of
from levit_batch.table.write import read_record

NARROW = ("row", "target", "label", "score", "top_labels", "head_label", "distill_label", "head_divergence", "error")


@dataclass(frozen=True)
class ChunkFile:
    """One visible chunk file: rows `written.first` to `written.stop` of the shard that `folder` belongs to (`folder_of`)."""

    folder: str
    written: Written
    place: Place


def open_output(path: str) -> Output:
    """The output that `levit-batch run` wrote at `path`. Raises OutputError when there is none."""
    output = Output(OutputConfig(path=path))
    job = job_of(output)
    check_version(job, str(output))
    written_as = job.get("config", {}).get("output", {}).get("format", "parquet")
    return Output(OutputConfig(path=path, format=written_as))


def job_of(output: Output) -> dict[str, Any]:
    """The output's `job.json`. Raises OutputError when there is none."""
    job = output.read_json("job.json")
    if job is None:
        raise OutputError(f"{output}: no job.json there; give the folder that `levit-batch run` wrote (its output.path)")
    return job


def shard_names(output: Output, folders: Iterable[str]) -> list[str]:
    """The names of the shards that these folders belong to, as their files say; the folder's where a file cannot be read."""
    names = []
    for folder in folders:
        base = output.place.join(DATA, folder)
        try:
            file = next(base.join(info.base_name) for info in base.list() if CHUNK_FILE.fullmatch(info.base_name))
            names.append(read_record(file)["shard"])
        except (StopIteration, OSError, OutputError):
            names.append(folder)
    return names


def run_names(output: Output) -> list[str]:
    """The names (UTC times) of all runs, oldest first."""
    names = [info.base_name for info in output.place.join("runs").list(recursive=False)]
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def runs_of(output: Output, last: int | None = None) -> list[dict[str, Any]]:
    """The records of all runs (or the `last` ones), oldest first; each with its name as `name`."""
    names = run_names(output)
    names = names if last is None else names[-last:]
    return [{"name": name, **(output.read_json(f"runs/{name}.json") or {})} for name in names]


def chunk_files(output: Output) -> list[ChunkFile]:
    """Every visible chunk file, by its shard's folder and first row. Memory: some 1 KB a file."""
    return [*_files(output)]


def first_file(output: Output) -> ChunkFile:
    """The first of `chunk_files`, for what all of them share. Raises OutputError when nothing has been written yet."""
    return _require(next(_files(output), None), output)


def _files(output: Output) -> Iterator[ChunkFile]:
    base, live = output.place.join(DATA), look(output)
    for folder in sorted(live):
        for file in sorted(live[folder], key=lambda file: file.first):
            yield ChunkFile(folder, file, base.join(folder, file.name))


def chunk_file(output: Output, path: str) -> ChunkFile:
    """The file that the manifest names `path`."""
    at = output.place.join(path)
    return ChunkFile(path.split("/")[1], written_of(path.rpartition("/")[2]), at)


def require_files(output: Output) -> list[ChunkFile]:
    """`chunk_files`. Raises OutputError when nothing has been written yet."""
    return _require(chunk_files(output), output)


def _require(found: Any, output: Output) -> Any:
    if not found:
        raise OutputError(f"{output}: no rows yet; run the job first (`levit-batch run CONFIG`)")
    return found


def schema_of(file: ChunkFile) -> pa.Schema:
    return schema_at(file.place)


def schema_at(at: Place) -> pa.Schema:
    """Raises OutputError when the file cannot be read."""
    try:
        with at.filesystem.open_input_file(at.path) as stream:
            return pq.read_schema(stream) if at.path.endswith(".parquet") else pa.ipc.open_stream(stream).schema
    except (pa.ArrowInvalid, OSError) as e:
        raise unreadable(at, e) from e


def read_file(file: ChunkFile, columns: Sequence[str] | None = None, group: int | None = None) -> pa.Table:
    """The rows of one chunk file, or of one of its row groups; of `columns`, those that it has. Raises OutputError when it
    cannot be read."""
    return read_table(file.place, columns, group)


def read_table(at: Place, columns: Sequence[str] | None = None, group: int | None = None) -> pa.Table:
    """`read_file` of the file at a place. Only Parquet has row groups."""
    try:
        if at.path.endswith(".parquet"):
            with at.filesystem.open_input_file(at.path) as stream, pq.ParquetFile(stream) as parquet:
                names = parquet.schema_arrow.names
                wanted = None if columns is None else [name for name in columns if name in names]
                # Dots reach into structs in Parquet's names: a column called `image.path` is found all the same.
                read = parquet.read if group is None else functools.partial(parquet.read_row_group, group)
                return read(columns=wanted, use_threads=False)
        with pa.memory_map(at.path) if at.local else at.filesystem.open_input_file(at.path) as stream:
            table = pa.ipc.open_stream(stream).read_all()
            return table if columns is None else table.select([name for name in columns if name in table.schema.names])
    except (pa.ArrowInvalid, OSError) as e:
        raise unreadable(at, e) from e


def unreadable(at: Place, error: Exception) -> OutputError:
    return OutputError(f"{at.url}: cannot be read ({error}); delete it and run the job again to write it anew")
