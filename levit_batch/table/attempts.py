"""How often a process has begun a chunk, counted outside that process: a death must not be forgotten with its memory.

What a dead process was at begins again in another, for ever. A marker beside the output, there while a process is at the
chunk and after its death, says how often. From the third time on the images are decoded in a child process; a chunk that still
kills its replica, or kills it after decoding, is given up.
"""

import contextlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from levit_batch.errors import JobError
from levit_batch.job.chunks import Chunk
from levit_batch.storage.place import Place
from levit_batch.table.output import Output
from levit_batch.table.refusal import writing

ISOLATE_AFTER = 2  # deaths while decoding, of any run: the next attempt decodes in a child process
GIVE_UP_AFTER = 5  # deaths in one run
DECODE = "decode"  # and, in a replica that decodes itself, all that follows
PREDICT = "predict"  # and write, what another process decoded
WHAT = {
    DECODE: "its replica died {} times, also with its images decoded in a child process",
    PREDICT: "its replica died {} times after its images were decoded",
}


class Attempt(NamedTuple):
    """Which attempt at a stage of a chunk it is, from 1: of all runs, and of this one."""

    number: int = 1
    here: int = 1


@dataclass(frozen=True)
class Attempts:
    """The markers of one run."""

    output: Output
    run: str

    def died_with(self, chunk: Chunk) -> bool:
        """Whether a process began `chunk` and never ended it."""
        return self._place(chunk).exists()

    def begin(self, chunk: Chunk, stage: str = DECODE) -> Attempt:
        """Count one more attempt at this stage of `chunk`, and return which it is.

        Raises JobError when this run has begun it too often (the next run then starts counting afresh), RefusedError when the
        output cannot be written.
        """
        attempts, here = self._read(chunk)
        attempts[stage] += 1
        here[stage] += 1
        with writing(self.output):
            if here[stage] > GIVE_UP_AFTER:
                self.output.delete([self._place(chunk)])
                raise JobError(
                    f"{chunk}: {WHAT[stage].format(GIVE_UP_AFTER)}; look for memory that runs out (the system's log), or run "
                    "with fewer compute.replicas"
                )
            self._write(chunk, attempts, here)
        return Attempt(attempts[stage], here[stage])

    def take_back(self, chunk: Chunk, stage: str = DECODE) -> None:
        """The last attempt has ended, well or not, and its process lives: only deaths count."""
        attempts, here = self._read(chunk)
        attempts[stage] -= 1
        here[stage] -= 1
        if +attempts:
            with contextlib.suppress(OSError):
                self._write(chunk, +attempts, +here)
        else:
            self.end(chunk)

    def end(self, chunk: Chunk) -> None:
        """The chunk is written. A marker that cannot be deleted now costs no chunk: the next run deletes it."""
        with contextlib.suppress(OSError):
            self.output.delete([self._place(chunk)])

    def _read(self, chunk: Chunk) -> tuple[Counter[str], Counter[str]]:
        """Attempts by stage: of all runs, and of this one."""
        try:
            marker = json.loads(self._place(chunk).read_bytes())
            return Counter(marker["attempts"]), Counter(marker["here"] if marker["run"] == self.run else {})
        except (OSError, ValueError, KeyError, TypeError):
            return Counter(), Counter()

    def _write(self, chunk: Chunk, attempts: Counter[str], here: Counter[str]) -> None:
        marker = json.dumps({"attempts": attempts, "run": self.run, "here": here}).encode()
        # Without waiting for the disk: with the machine's death, this run and its counts end anyway.
        self._place(chunk).write_bytes(marker, lasting=False)

    def _place(self, chunk: Chunk) -> Place:
        return self.output.place.join("_attempts", self.output.chunk_name(chunk))
