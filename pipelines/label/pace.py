"""How long decoding takes beside predicting, from which the next run gets its number of decode tasks."""

from collections import deque
from statistics import median
from typing import Any

from levit_batch.table.output import Output

CHUNKS = 1_000  # the last of a run, that a long one keeps no more
RUNS_READ = 10  # back from the newest
KEY = "decode_per_predict"


class Pace:
    """Seconds of decoding for each of predicting, chunk by chunk. The first of a process tells nothing: it pays for the start."""

    def __init__(self) -> None:
        self.ratios: deque[float] = deque(maxlen=CHUNKS)

    def add(self, record: dict[str, Any]) -> None:
        decode, predict = (record["seconds"].get(stage) for stage in ("decode", "predict"))
        if decode and predict and not record.get("cold"):
            self.ratios.append(decode / predict)

    @property
    def median(self) -> float | None:
        return median(self.ratios) if self.ratios else None


def measured_decode(output: Output, gpu: bool) -> float | None:
    """What the newest run on the same kind of hardware measured; None without one."""
    names = sorted((info.base_name for info in output.place.join("runs").list(recursive=False)), reverse=True)
    for name in names[:RUNS_READ]:
        record = output.read_json(f"runs/{name}") or {}
        if (pool := record.get("pool")) and bool(pool["gpus"]) == gpu and record.get(KEY):
            return record[KEY]
    return None
