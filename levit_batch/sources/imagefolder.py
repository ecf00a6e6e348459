"""A tree of image files, local or on an object store. `label` is the folder's name; or a metadata file has the columns."""

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.config import SourceConfig
from levit_batch.sources.columns.before import numbers_as_before
from levit_batch.sources.columns.lookup import Found, read_below
from levit_batch.sources.columns.standard import check_columns, check_same, standard_table
from levit_batch.sources.imagefolder_metadata import FILE_NAME, METADATA_NAMES, leaves, read_metadata
from levit_batch.sources.imagefolder_runs import cut_runs
from levit_batch.sources.source import Source
from levit_batch.sources.tables import found_arrays, found_bytes, read_in_order, tables
from levit_batch.storage.identity import version_of
from levit_batch.storage.place import Place, place
from levit_batch.storage.tree import list_tree
from levit_batch.storage.url import shown

IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k",
    ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".tga", ".ico", ".avif",
)  # fmt: skip
REMOTE_READS = 16  # at a time, in one replica
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PACKED = pa.ipc.IpcWriteOptions(compression="zstd")


def open_source(config: SourceConfig) -> "ImageFolder":
    if not isinstance(config.path, str):
        raise SourceError("source.path: an imagefolder source has one folder, not a list")
    path = config.path.rstrip("/") + (f"/{config.split}" if config.split else "")
    return ImageFolder(config, path)


class ImageFolder(Source):
    """Rows are files (sorted folder by folder), or the rows of the metadata files where there are any.

    Columns: the image, `file_name` from the root, and `label` (the name of the file's folder) or the metadata's columns.
    `file_name` is always kept: it is what a row is known by, also when it moves to another shard. Shards are runs of rows
    (see `runs`); each shard's rows are kept packed, so that a replica need not list anything.
    """

    cuts_shards = True
    row_name = FILE_NAME
    driver_only = ("rows",)

    def __init__(self, config: SourceConfig, path: str):
        kept = [*config.keep_columns, *([] if FILE_NAME in config.keep_columns else [FILE_NAME])]
        super().__init__(config.model_copy(update={"keep_columns": kept}))
        self.url = place(path).url
        self._packed: dict[str, bytes] = {}

    @property
    def folder(self) -> Place:
        """Made where it is needed: a file system of the Hub would take its whole listing along to the replicas."""
        return place(self.url)

    def listing(self) -> pa.Table:
        """The files: name, size, stamp. Raises SourceError when the folder cannot be listed."""
        try:
            files = list_tree(self.folder, IMAGE_ENDINGS, METADATA_NAMES)
        except (FileNotFoundError, NotADirectoryError):
            raise SourceError(f"source.path: there is no folder {shown(self.folder.url)}") from None
        except OSError as e:
            raise SourceError(f"source.path: {shown(self.folder.url)} cannot be listed: {e}") from None
        if not (self.leave_out or "").startswith(f"{self.url}/"):
            return files
        return files.filter(pc.invert(pc.starts_with(files["name"], self.leave_out[len(self.url) + 1 :] + "/")))

    @cached_property
    def rows(self) -> pa.Table:
        """Every row without its image: `file_name`, the columns, and what identifies the file's content."""
        files = self.listing()
        is_metadata = pc.is_in(
            pc.replace_substring_regex(files["name"], "(?s)^.*/", ""), pa.array(METADATA_NAMES, pa.large_string())
        )
        metadata = files.filter(is_metadata)["name"].to_pylist()
        files = files.filter(pc.invert(is_metadata)).rename_columns([FILE_NAME, "__size", "__stamp"])
        if metadata:
            said = read_metadata(self.folder, metadata, self.config.image_column)
            return _join(said if self.before is None else numbers_as_before(said, self.before), files)
        if not files.num_rows:
            raise SourceError(
                f"source.path: no images below {shown(self.folder.url)}; image files end with .jpg, .png, ..."
            )
        return files.append_column("label", _folder_names(files[FILE_NAME]))

    @cached_property
    def _schema(self) -> pa.Schema:
        fields = [field for field in self.rows.schema if not field.name.startswith("__")]
        return pa.schema([pa.field(self.config.image_column, IMAGE), *fields])

    def schema(self) -> pa.Schema:
        return self._schema

    def shards(self) -> Iterator[Shard]:
        check_columns(self.schema(), self.config)
        try:
            check_same(self.schema(), self.like, self.config, self.before)
        except SourceError as e:
            raise SourceError(f"{shown(self.url)}: {e}") from None
        keys = (key or "" for piece in self.rows[FILE_NAME].chunks for key in piece.to_pylist())
        for name, start, stop in cut_runs(keys):
            part = self.rows.slice(start, stop - start)
            yield Shard(name, name, version_of(*(column.to_pylist() for column in part.columns)), part.num_rows)
            if name not in self._packed:
                self._packed[name] = _pack(
                    part.select([i for i, n in enumerate(part.schema.names) if not n.startswith("__")])
                )

    def row_names(self) -> pa.ChunkedArray:
        return self.rows[FILE_NAME]

    def target_values(self, chunks: Iterable[Chunk]) -> set[Any]:
        return set(self.rows[self.config.target_column].unique().to_pylist())

    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        if chunk.shard not in self._packed:
            list(self.shards())
        rows = pa.ipc.open_stream(self._packed[chunk.shard]).read_all().slice(first)
        names = rows[FILE_NAME].to_pylist()
        rows, start = self._with_image(rows, names), 0

        def make(found: list[Found]) -> pa.Table:
            nonlocal start
            part, start = rows.slice(start, len(found)), start + len(found)
            return standard_table(part, self.config, self.like, found_arrays(found))

        read = partial(self._read, self.folder)
        yield from tables(read_in_order(read, names, 1 if self.folder.local else REMOTE_READS), found_bytes, make)

    def _read(self, folder: Place, name: str | None) -> Found:
        if not name:
            return None, "null: no file name"
        if leaves(name):
            return None, f"forbidden: {shown(name)} leaves the folder of its metadata file"
        return read_below(name, folder, self.config)

    def _with_image(self, part: pa.Table, names: list[str | None]) -> pa.Table:
        """`image.path` can be kept; the bytes are no column, as they are not wanted twice."""
        image = pa.StructArray.from_arrays(
            [pa.nulls(len(names), pa.binary()), pa.array(names, pa.string())], fields=list(IMAGE)
        )
        return part.append_column(self.config.image_column, image)


def _folder_names(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """The name of the folder that each file is in; null for a file in the root."""
    folders = pc.replace_substring_regex(names, r"(?s)^(?:.*/)?([^/]*)/[^/]*$", r"\1")
    return pc.if_else(pc.match_substring(names, "/"), folders, None).cast(pa.string())


def _join(metadata: pa.Table, files: pa.Table) -> pa.Table:
    """The rows of the metadata, in their order, with the size and stamp of their files (null: there is no such file)."""
    at = pc.index_in(metadata[FILE_NAME], files[FILE_NAME].combine_chunks())
    for name in ("__size", "__stamp"):
        metadata = metadata.append_column(name, files[name].take(at))
    return metadata


def _pack(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=PACKED) as writer:
        writer.write_table(rows.combine_chunks())
    return sink.getvalue().to_pybytes()
