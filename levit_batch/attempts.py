"""How often a process has begun a chunk, counted outside that process: a death must not be forgotten with its memory.

Ray replays the task of a dead replica for ever. A marker beside the output says how often; from the third time on the images
are decoded in a child process, and a chunk that still kills its replica is given up.
"""

import json
from dataclasses import dataclass

from levit_batch.errors import JobError
from levit_batch.output import Output
from levit_batch.plan import Chunk
from levit_batch.storage import Place

ISOLATE_AFTER = 2  # deaths, of any run: the next attempt decodes in a child process
GIVE_UP_AFTER = 5  # deaths in one run


@dataclass(frozen=True)
class Attempts:
    """The markers of one run."""

    output: Output
    run: str

    def died_with(self, chunk: Chunk) -> bool:
        """Whether a process began `chunk` and never ended it."""
        return self._place(chunk).exists()

    def begin(self, chunk: Chunk) -> int:
        """Count one more attempt at `chunk`; returns how many there were, this one included.

        Raises JobError when this run has begun it too often; the next run then starts counting afresh.
        """
        at = self._place(chunk)
        try:
            said = json.loads(at.read_bytes())
        except (OSError, ValueError):
            said = {"attempts": 0}
        here = said["here"] + 1 if said.get("run") == self.run else 1
        if here > GIVE_UP_AFTER:
            at.delete()
            raise JobError(
                f"{chunk}: its replica died {GIVE_UP_AFTER} times, also with its images decoded in a child process; "
                "look for memory that runs out (the system's log), or run with fewer compute.replicas"
            )
        total = said["attempts"] + 1
        # Without waiting for the disk: with the machine's death, this run and its counts end anyway.
        at.write_bytes(json.dumps({"attempts": total, "run": self.run, "here": here}).encode(), lasting=False)
        return total

    def end(self, chunk: Chunk) -> None:
        self.output.delete([self._place(chunk)])

    def _place(self, chunk: Chunk) -> Place:
        return self.output.place.join("_attempts", self.output.chunk_name(chunk))
