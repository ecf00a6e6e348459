"""Two labelings of the same rows, held against each other: streamed shard by shard, whatever their chunk sizes."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.results.best import Best, Pick
from levit_batch.results.diff_rows import aligned, by_shard, nothing_shared
from levit_batch.results.naming import naming_of
from levit_batch.table.output import Output
from levit_batch.table.read import ChunkFile, first_file, job_of, require_files, schema_of, shard_names

FLIPS = 50


class Diff:
    """Counts over pairs of rows. Classes are matched by name: the two models may number them differently."""

    def __init__(self, names: tuple[list[str], list[str]], rows: int, column: str | None = None):
        self.column = column  # of the first, that names a row's file
        self.names = list(dict.fromkeys([*names[0], *names[1]]))
        place = {name: i for i, name in enumerate(self.names)}
        self.places = [np.array([place[name] for name in each]) for each in names]
        self.rows = self.both = self.same = self.right = 0
        self.errors, self.score, self.judged = np.zeros(2, int), np.zeros(2), np.zeros(2, int)
        self.support, self.agreed = np.zeros((2, len(self.names)), np.int64)
        self.flips: Counter = Counter()
        self.changed_shards: list[str] = []
        self.alone = [0, 0]
        self.truths = 0
        self.look = Best(rows)

    def add(self, file: ChunkFile, one: pa.Table, other: pa.Table) -> None:
        """Count rows `one` [N] of the first output and `other` [N] of the second, which are the same rows."""
        fine = [pc.is_null(t["error"]).to_numpy() for t in (one, other)]
        self.errors += [int((~f).sum()) for f in fine]
        self.rows += one.num_rows
        both = fine[0] & fine[1]
        a, b = (places[t["label"].fill_null(0).to_numpy()] for t, places in zip((one, other), self.places, strict=True))
        scores = [t["score"].fill_null(0).to_numpy() for t in (one, other)]
        same = both & (a == b)
        self.both += int(both.sum())
        self.same += int(same.sum())
        self.score += [float(s[both].sum(dtype=np.float64)) for s in scores]
        self.support += np.bincount(a[both], minlength=len(self.names))
        self.agreed += np.bincount(a[same], minlength=len(self.names))
        flipped = both & ~same
        codes, counts = np.unique(a[flipped] * len(self.names) + b[flipped], return_counts=True)
        self.flips.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        truth = self._judge(one, both, a, b)
        self._look(file, one, flipped, a, b, scores, truth)

    def _judge(self, one: pa.Table, both: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
        if "target" not in one.schema.names or not pa.types.is_integer(one.schema.field("target").type):
            return None
        target = one["target"].fill_null(-1).to_numpy()
        known = both & (target >= 0) & (target < len(self.places[0]))
        truth = np.where(known, self.places[0][np.where(known, target, 0)], -1)
        self.truths += int(known.sum())
        self.judged += [int((known & (truth == a)).sum()), int((known & (truth == b)).sum())]
        self.right += int((known & (truth == a) & (truth == b)).sum())
        return truth

    def _look(self, file: ChunkFile, one: pa.Table, flipped, a, b, scores, truth) -> None:
        """Keep the rows where both are sure and do not agree."""

        def pick(i: int) -> Pick:
            return {
                "shard": one["shard"][i].as_py(), "row": one["row"][i].as_py(),
                "name": one[self.column][i].as_py() if self.column else None, "version": file.written.version, "error": None,
                "label_name": self.names[a[i]], "score": float(scores[0][i]), "other_name": self.names[b[i]],
                "other_score": float(scores[1][i]),
                "target_name": self.names[truth[i]] if truth is not None and truth[i] >= 0 else None,
            }  # fmt: skip

        self.look.add(-np.minimum(*scores)[flipped], np.flatnonzero(flipped), pick)

    def result(self) -> dict[str, Any]:
        """JSON values; None for what no row tells."""
        n = self.both
        return {
            "rows": self.rows, "compared": n, "only_in": self.alone, "changed_shards": self.changed_shards,
            "errors": self.errors.tolist(), "agreement": self.same / n if n else None,
            "mean_score": (self.score / n).tolist() if n else None,
            "mean_score_change": float(self.score[1] - self.score[0]) / n if n else None,
            "classes": {
                self.names[i]: {"rows": int(self.support[i]), "agreement": float(self.agreed[i] / self.support[i])}
                for i in np.argsort(-self.support, kind="stable") if self.support[i]
            },
            "flips": [
                {"from": self.names[code // len(self.names)], "to": self.names[code % len(self.names)], "rows": rows}
                for code, rows in self.flips.most_common(FLIPS)
            ],
            "target": {
                "rows": self.truths, "top1": (self.judged / self.truths).tolist(), "both_right": self.right,
                "mended": int(self.judged[1]) - self.right, "broken": int(self.judged[0]) - self.right,
            } if self.truths else None,
            "look": [{name: value for name, value in pick.items() if name != "key"} for pick in self.look.kept],
        }  # fmt: skip


def diff(one: Output, other: Output, look: int = 24) -> dict[str, Any]:
    """Compare the rows that both outputs have, as JSON values.

    agreement: share of equal labels among rows without an error in either; classes: the same by the first output's label;
    flips: pairs that differ, most frequent first; target (where the first has one): accuracy of both, rows `mended` and
    `broken` by the second; look: the `look` rows where both are surest and differ; only_in: rows that one output alone
    has; changed_shards: left out, because the two labelled different content. Raises OutputError when they share no row.
    """
    naming = naming_of(job_of(one), schema_of(first_file(one)))
    total = Diff((naming.classes, job_of(other)["class_names"]), look, naming.column)
    shards = [dict(by_shard(require_files(output))) for output in (one, other)]
    for folder in sorted({*shards[0], *shards[1]}):
        files = [each.get(folder, []) for each in shards]
        if all(files) and files[0][0].written.version != files[1][0].written.version:
            total.changed_shards += shard_names(one, [folder])
            continue
        for file, *pair in aligned(files[0], files[1], total.alone, naming.columns):
            total.add(file, *pair)
    if not total.rows:
        raise nothing_shared((one, other), shards, total.changed_shards)
    return total.result()
