"""`samples.parquet`: the rows worth a look with their small pictures, as replicas kept them while they labelled. So the page
reads no row of the source, and no old row of the table, again.
"""

import io
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.results.best import Pick
from levit_batch.results.looks import SHOWN, SPARE, Looks
from levit_batch.results.page.samples import pick_samples, thumbnails
from levit_batch.sources.source import Source
from levit_batch.table.manifest import Manifest
from levit_batch.table.output import SAMPLES, Output
from levit_batch.table.read import chunk_file

SCHEMA = pa.schema(
    [
        ("group", pa.string()), ("key", pa.float64()), ("shard", pa.string()), ("row", pa.int64()), ("version", pa.string()),
        ("name", pa.string()), ("label", pa.int64()), ("label_name", pa.string()), ("score", pa.float32()),
        ("target_name", pa.string()), ("error", pa.string()), ("image", pa.binary()), ("note", pa.string()),
    ]
)  # fmt: skip


def gather(
    output: Output, manifest: Manifest, source: Source | str, new: Iterable[Pick] = (), run: str = "", blind: Sequence[str] = ()
) -> Looks:
    """The best picks of the table: those kept before that are still there, and `new` ones, from this `run`.

    blind: paths of this run's files that gave no picks. These, and files that nobody kept a book of, are scanned, and the
    pictures of what is found read again from `source`; so is the whole table when nothing was kept before.
    """
    looks, kept, files = Looks(), read_samples(output), manifest.files
    older = pc.fill_null(pc.not_equal(files["run"], run), True)
    looks.merge(pick for pick in kept or () if _holds(files, pick, older))
    looks.merge(pick for pick in new if _holds(files, pick))
    old = files["path"].filter(older).to_pylist() if kept is None else manifest.read_anew
    files = [chunk_file(output, path) for path in sorted({*old, *blind})]
    looks.merge(thumbnails(source, pick_samples(output, SHOWN + SPARE, files)) if files else ())
    return looks


def _holds(files: pa.Table, pick: Pick, among: pa.ChunkedArray | bool = True) -> bool:
    """Whether the row is in one of `files`, as it was labelled. among [N]: which files count."""
    here = pc.and_(pc.equal(files["shard"], pick["shard"]), pc.equal(files["version"], pick["version"]))
    rows = pc.and_(pc.less_equal(files["first"], pick["row"]), pc.greater_equal(files["last"], pick["row"]))
    return bool(pc.any(pc.and_(pc.and_(here, rows), among)).as_py())


def read_samples(output: Output) -> list[Pick] | None:
    """What was kept; None where nothing was, or what cannot be read."""
    try:
        table = pq.read_table(pa.BufferReader(output.place.join(SAMPLES).read_bytes()))
        return table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError, KeyError, ValueError):
        return None


def write_samples(output: Output, looks: Looks) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(looks.picks(None), SCHEMA), sink)
    output.write(SAMPLES, sink.getbuffer())
