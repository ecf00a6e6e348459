"""One Arrow IPC file of either form, read by record batches without loading what is not asked for."""

from collections.abc import Iterator
from functools import cached_property

import pyarrow as pa

from levit_batch.sources.damage import damage
from levit_batch.storage.identity import open_file
from levit_batch.storage.place import place
from levit_batch.storage.url import scheme

MAGIC = b"ARROW1"


class ArrowFile:
    """Opened for reading by batches; local files are memory-mapped.

    Raises OSError when it cannot be read now, ArrowInvalid when it is no Arrow file.
    """

    def __init__(self, url: str, version: str | None = None):
        self._stream, file = open_file(url, version)
        self.version = file.version
        self.local = scheme(url) in ("", "file")
        if self.local and file.size:
            self._stream.close()
            self._stream = pa.memory_map(place(url).path)
        self.random = self._stream.read(len(MAGIC)) == MAGIC
        self.schema = self._reader().schema

    @cached_property
    def _as_in_memory(self) -> bool:
        """Whether batches are used where the file is mapped: it is local, and not compressed."""
        if not (self.local and self.random):
            return False
        self._stream.seek(0)
        start = self._stream.read_buffer(1).address
        try:
            batch = pa.ipc.open_file(self._stream).get_batch(0)
        except (ValueError, pa.ArrowException, OSError):  # damaged, or no batch
            return False
        buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None]
        return any(start <= buffer.address < start + self._stream.size() for buffer in buffers)

    def _reader(
        self, columns: list[int] | None = None
    ) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
        """A new reader from the start; of the columns at those places only, where given."""
        # Of a mapped file that is not compressed, asking for some fields would copy whole batches.
        some = None if self._as_in_memory else columns
        options = pa.ipc.IpcReadOptions(included_fields=some or None)
        self._stream.seek(0)
        return (
            pa.ipc.open_file(self._stream, options=options)
            if self.random
            else pa.ipc.open_stream(self._stream, options=options)
        )

    def batch_sizes(self) -> list[int] | None:
        """Rows of each batch; None where only reading the whole file could tell."""
        narrow = [i for i, field in enumerate(self.schema) if pa.types.is_primitive(field.type)][:1]
        if not self.local and not (self.random and narrow):
            return None
        reader = self._reader(narrow or None)
        if self.random:
            return [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        return [batch.num_rows for batch in reader]

    def batches(self, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch | str]]:
        """Rows and content of each batch; in place of a damaged one, its rows (1 where nobody knows) and the reason."""
        reader = self._reader([self.schema.get_field_index(name) for name in columns])
        sizes = self.batch_sizes() if self.random else None
        i = 0
        while sizes is None or i < len(sizes):
            try:
                batch = reader.get_batch(i) if self.random else reader.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as e:
                if not (reason := damage(e)):
                    raise
                yield (sizes[i] if sizes else 1), f"unreadable: record batch {i} is damaged: {reason}"
                if sizes is None:
                    return
            else:
                yield batch.num_rows, batch.select(columns)
            i += 1
