"""How often a process has begun a chunk, counted outside that process: a death must not be forgotten with its memory.

Ray replays the task of a dead replica for ever. A marker beside the output says how often; from the third time on the images
are decoded in a child process, and a chunk that still kills its replica is given up.
"""

import json
from dataclasses import dataclass
from typing import Any

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
        at, said = self._place(chunk), self._said(chunk)
        here = said["here"] + 1 if said.get("run") == self.run else 1
        if here > GIVE_UP_AFTER:
            at.delete()
            raise JobError(
                f"{chunk}: its replica died {GIVE_UP_AFTER} times, also with its images decoded in a child process; "
                "look for memory that runs out (the system's log), or run with fewer compute.replicas"
            )
        self._say(chunk, said["attempts"] + 1, here)
        return said["attempts"] + 1

    def take_back(self, chunk: Chunk) -> None:
        """The last attempt failed, but its process lives: only deaths count."""
        said = self._said(chunk)
        if said["attempts"] > 1:
            self._say(chunk, said["attempts"] - 1, said["here"] - 1)
        else:
            self.end(chunk)

    def end(self, chunk: Chunk) -> None:
        self.output.delete([self._place(chunk)])

    def _said(self, chunk: Chunk) -> dict[str, Any]:
        try:
            return json.loads(self._place(chunk).read_bytes())
        except (OSError, ValueError):
            return {"attempts": 0}

    def _say(self, chunk: Chunk, attempts: int, here: int) -> None:
        said = json.dumps({"attempts": attempts, "run": self.run, "here": here}).encode()
        # Without waiting for the disk: with the machine's death, this run and its counts end anyway.
        self._place(chunk).write_bytes(said, lasting=False)

    def _place(self, chunk: Chunk) -> Place:
        return self.output.place.join("_attempts", self.output.chunk_name(chunk))
