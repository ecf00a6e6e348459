"""`metadata.csv`, `.jsonl` and `.parquet` beside images: columns for the files that their `file_name` names."""

import io
import posixpath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from levit_batch.errors import SourceError
from levit_batch.sources.columns.types import cast, plain
from levit_batch.storage.place import Place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import printable

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NAMES = (pa.string(), pa.large_string(), pa.binary())  # types; a CSV with a name that is not UTF-8 has bytes
FILE_NAME = "file_name"  # here and below: a path from the root


def read_metadata(root: Place, names: list[str], image_column: str) -> pa.Table:
    """The rows of all metadata files in order, `file_name` first, as a path from `root`.

    A row's own `file_name` (for the column X of several images: `X_file_name`) starts at the folder of its metadata file.
    Raises SourceError for a file that cannot be parsed, and when the files do not have the same columns.
    """
    tables = [_read_one(root.join(name), name, image_column) for name in names]
    if len(tables) == 1:  # two columns of one name, which cannot be put together, matter only to who asks for them
        return tables[0]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as e:
        raise SourceError(f"source.path: {', '.join(names[:3])} do not have the same columns: {e}") from None


def _read_one(at: Place, name: str, image_column: str) -> pa.Table:
    try:
        table = _parse(retry(at.read_bytes), name)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as e:
        raise SourceError(f"{at.url}: cannot be read: {e}") from None
    column = next((c for c in _columns(image_column) if c in table.schema.names), None)
    if column is None:
        there = ", ".join(table.schema.names)
        raise SourceError(f"{at.url}: there is no column {' or '.join(_columns(image_column))}; columns here: {there}")
    if table.schema.names.count(column) > 1:
        raise SourceError(f"{at.url}: several columns are called {column}; rename all but one")
    if table.schema.field(column).type not in NAMES:
        raise SourceError(f"{at.url}: {column} is {table.schema.field(column).type}; it must hold names of files")
    folder = posixpath.dirname(name)
    paths = _text(table[column])
    if folder:
        text = pa.large_string()
        paths = pc.binary_join_element_wise(pa.scalar(folder, text), paths, pa.scalar("/", text))
    # The image itself is a column, too; a column called as that one is hidden by it.
    rest = [i for i, c in enumerate(table.schema.names) if c not in (column, FILE_NAME, image_column)]
    columns = [cast(table.column(i), plain(table.column(i).type)) for i in rest]
    return pa.table([paths, *columns], names=[FILE_NAME, *(table.schema.names[i] for i in rest)])


def _text(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """`names` as text; Parquet and CSV may hold some that are not UTF-8."""
    try:
        return names.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        raw = names.cast(pa.large_binary()).to_pylist()
        return pa.chunked_array([[None if name is None else printable(name) for name in raw]], pa.large_string())


def _columns(image_column: str) -> list[str]:
    own = f"{image_column}_file_name"
    return [FILE_NAME, own] if image_column == "image" else [own]


def _parse(data: bytes, name: str) -> pa.Table:
    if name.endswith(".parquet"):
        return pq.ParquetFile(io.BytesIO(data)).read()
    if name.endswith(".csv"):
        return pyarrow.csv.read_csv(io.BytesIO(data), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    return pyarrow.json.read_json(io.BytesIO(data), parse_options=pyarrow.json.ParseOptions(newlines_in_values=False))


def leaves(path: str) -> bool:
    """Whether a name in a metadata file is anything but a plain path below the folder."""
    return "://" in path or path.startswith("/") or ".." in path.split("/") or "//" in path
