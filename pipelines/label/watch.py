"""What a replica keeps of a chunk for the page: small pictures of the few rows worth a look, made while their pixels are here."""

import threading

import numpy as np
import pyarrow as pa
import torch

from levit_batch.job.row import TARGET
from levit_batch.results.best import Pick
from levit_batch.results.looks import LEAST, MISTAKES, SUREST, Looks
from levit_batch.results.naming import Naming
from levit_batch.results.page.samples import thumbnail
from pipelines.label.work import Part


class Album:
    """The picks of one process. A chunk gives many at the beginning of a job, and soon hardly any."""

    def __init__(self, naming: Naming):
        self.looks, self.naming, self.lock = Looks(), naming, threading.Lock()

    def watch(self, part: Part) -> "Watch":
        return Watch(part, self.looks)

    def add(self, table: pa.Table, watch: "Watch") -> list[Pick]:
        """The picks of a chunk whose rows are `table`; each image a JPEG of what the model saw."""
        pixels = watch.pixels()
        with self.lock:  # two chunks end side by side
            return self.looks.add(
                table, self.naming, watch.part.chunk.version, lambda row: thumbnail(pixels[row]) if row in pixels else None
            )


class Watch:
    """Called with each batch of one chunk: keeps the pixels of rows that may be among the best, a few of each group."""

    def __init__(self, part: Part, looks: Looks):
        self.part, self.looks = part, looks
        self.kept: dict[str, list[tuple[float, int, np.ndarray]]] = {group: [] for group in looks.groups}
        self.seen = self.tables = 0
        self.targets = np.zeros(0, np.int64)

    def __call__(self, pixels: np.ndarray, logits: np.ndarray) -> None:
        """pixels uint8 [N,H,W,3] of the next good rows, logits [N,K]."""
        best = torch.from_numpy(logits).softmax(-1).max(-1)  # as the row's score is made: equal to the last bit
        score, target = best.values.numpy(), self._targets(len(pixels))
        wrong = (target >= 0) & (target != best.indices.numpy())
        for group, keys in ((SUREST, -score), (LEAST, score), (MISTAKES, np.where(wrong, -score, np.inf))):
            self._keep(group, keys, pixels)
        self.seen += len(pixels)

    def _keep(self, group: str, keys: np.ndarray, pixels: np.ndarray) -> None:
        best, kept = self.looks.groups[group], self.kept[group]
        limit = min(best.limit, kept[-1][0] if len(kept) == best.n else np.inf)
        places = np.flatnonzero((keys <= limit) & np.isfinite(keys))
        places = places[np.argsort(keys[places], kind="stable")[: best.n]]
        kept += [(float(keys[i]), self.seen + int(i), pixels[i].copy()) for i in places]
        kept.sort(key=lambda one: one[:2])
        del kept[best.n :]

    def _targets(self, rows: int) -> np.ndarray:
        """The targets [rows] of the good rows that come next; -1 where there is none."""
        for table in self.part.tables[self.tables :]:
            first = sum(part.num_rows for part in self.part.tables[: self.tables])
            fine = [error is None for error in self.part.errors[first : first + table.num_rows]]
            self.targets = np.concatenate([self.targets, _numbers(table)[np.array(fine, bool)]])
            self.tables += 1
        return self.targets[self.seen : self.seen + rows]

    def pixels(self) -> dict[int, np.ndarray]:
        """Row in the chunk to its pixels uint8 [H,W,3]."""
        good = [i for i, error in enumerate(self.part.errors) if error is None]
        return {good[place]: pixels for kept in self.kept.values() for _, place, pixels in kept}


def _numbers(table: pa.Table) -> np.ndarray:
    """The target of each row [N]; -1 where it has none, or several."""
    if TARGET not in table.schema.names or not pa.types.is_integer(table.schema.field(TARGET).type):
        return np.full(table.num_rows, -1)
    return table[TARGET].fill_null(-1).to_numpy()
