"""What a review has done so far, beside the output until its table is written: a killed one goes on from there."""

import contextlib
import io
import zipfile

import numpy as np
from pyarrow import fs

from levit_batch.errors import OutputError
from levit_batch.storage.place import Place
from levit_batch.table.output import REVIEWING, Output


class Kept:
    """Results of numbered parts. state: what they depend on, and nothing else; those of another state are not read."""

    def __init__(self, output: Output, state: str):
        self.output, self.folder = output, output.place.join(REVIEWING, state)
        self.there = {info.base_name for info in self.folder.list(recursive=False)}

    def read(self, number: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        """Distances and row numbers of this shape; None where they are not there, or not whole: the machine may have died."""
        at = self._at(number)
        if at.path.rpartition("/")[2] in self.there:
            with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
                file = np.load(io.BytesIO(at.read_bytes()))
                answer = file["distances"], file["places"]
                return answer if answer[0].shape == answer[1].shape == shape else None
        return None

    def write(self, number: int, answer: tuple[np.ndarray, np.ndarray]) -> None:
        data = io.BytesIO()
        np.savez(data, distances=answer[0], places=answer[1])
        try:
            self._at(number).write_bytes(data.getbuffer(), lasting=False)
        except OSError as e:
            raise OutputError(f"{self.folder.url}: cannot be written: {e}") from None

    def clear(self) -> None:
        """Delete what is kept, of other states, too."""
        base = self.output.place.join(REVIEWING)
        files = [info for info in base.list() if info.type == fs.FileType.File]
        self.output.delete([base.join(info.path[len(base.path) + 1 :]) for info in files])

    def _at(self, number: int) -> Place:
        return self.folder.join(f"{number:06d}.npz")
