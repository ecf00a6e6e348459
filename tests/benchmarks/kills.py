"""One job, killed again and again: driver, replica, raylet, gcs, node, all of it, in turns; then to the end, row for row.

python -m tests.benchmarks.kills --kills 100 --seed 1

After each kill the command must end by itself or go on, and leave no process; a table that is finished is held against an
undisturbed one, and the job begins anew. "ten seconds": SIGTERM, and SIGKILL of what is left ten seconds later, as Kubernetes and
Slurm end a job. "memory": the kernel kills a replica for want of it, where it lets us make a control group.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

VICTIMS = ("replica", "memory", "driver", "raylet", "gcs", "node", "group", "ten seconds")
NOTICE = 10  # seconds
GONE = 180  # seconds until a process that lost its own counts as left: Ray's agents look for their raylet now and then
PATIENCE = 240  # seconds for a command to end after what was killed
HASTY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}  # by default Ray hopes for a minute that its head comes back


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--victims", nargs="*", default=VICTIMS)
    arguments = parser.parse_args()
    print(f"--seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        return Kills(folder, random.Random(arguments.seed)).run(arguments.kills, arguments.victims)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Kills:
    """counts: what was killed, how the command then ended (an exit code, or "goes on"), and what was wrong."""

    def __init__(self, folder: Path, chance: random.Random):
        from tests.support.jobs import Job
        from tests.support.models import TINY, signal_model

        signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder / "checkpoint")
        whole, self.chance, self.counts = Job(folder / "whole", folder / "checkpoint"), chance, Counter[str]()
        said = whole.run()
        assert said.returncode == 0, said.stderr
        self.expected = whole.table()
        self.job = Job(folder / "killed", folder / "checkpoint", compute={"chunk_rows": 4})

    def run(self, kills: int, victims: list[str]) -> int:
        since = time.monotonic()
        for number, victim in enumerate(itertools.islice(itertools.cycle(victims), kills), 1):
            ended = self.kill(victim)
            self.counts[f"{victim}: {ended}"] += 1
            print(f"{number} {victim}: {ended}, {len(self.job.chunks())} chunks, {time.monotonic() - since:.0f} s", flush=True)
        self.finish()
        print(json.dumps(dict(sorted(self.counts.items()))))
        return 1 if self.counts["wrong"] else 0

    def kill(self, victim: str) -> str:
        """The job goes on until a few more chunks are there; then the victim dies. How the command ended."""
        from tests.support.jobs import wait_for

        process, target = self.job.start(env=HASTY), len(self.job.chunks()) + self.chance.randint(1, 12)
        wait_for(lambda: len(self.job.chunks()) >= target or process.poll() is not None, PATIENCE)
        if process.poll() is not None:
            process.communicate()
            self.finish()
            return "was faster"
        family = psutil.Process(process.pid).children(recursive=True)
        if victim == "ten seconds":
            return self.notice(process, family)
        if victim == "memory":
            return self.starve(process, family)
        for one in self.of(victim, process, family):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        return self.end(process, family)

    def notice(self, process: subprocess.Popen, family: list[psutil.Process]) -> str:
        since = time.monotonic()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(NOTICE)
        for one in [process, *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        took = time.monotonic() - since
        return f"{self.end(process, family)}, {'in time' if took < NOTICE else 'cut off'}"

    def starve(self, process: subprocess.Popen, family: list[psutil.Process]) -> str:
        from tests.support.jobs import replicas, wait_for
        from tests.support.out_of_memory import starved

        with starved(wait_for(lambda: replicas(process))[0].pid) as victim:
            if victim is not None:
                wait_for(lambda: victim.killed() or process.poll() is not None)
            by_kernel = victim is not None and victim.killed()
        return f"{self.end(process, family)}, {'by the kernel' if by_kernel else 'was not let'}"

    def of(self, victim: str, process: subprocess.Popen, family: list[psutil.Process]) -> list[psutil.Process]:
        from tests.support.jobs import replicas

        driver = psutil.Process(process.pid)
        if victim in ("driver", "group"):
            return [driver, *family] if victim == "group" else [driver]
        if victim == "replica":
            return replicas(process)[:1]
        raylets = [one for one in family if one.is_running() and one.name() == {"gcs": "gcs_server"}.get(victim, "raylet")]
        with contextlib.suppress(psutil.NoSuchProcess):
            return raylets + [child for one in raylets if victim == "node" for child in one.children(recursive=True)]
        return raylets

    def end(self, process: subprocess.Popen, family: list[psutil.Process]) -> str:
        try:
            _, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            self.wrong("it hangs")
            return "hangs"
        _, left = psutil.wait_procs(family, timeout=GONE)
        for one in left:
            self.wrong(f"{one} is left")
            one.kill()
        if "Traceback" in err and process.returncode >= 0:
            print(err[-600:])
            self.counts["traceback"] += 1
        elif process.returncode == 1:
            print(*err.strip().splitlines()[-3:], sep="\n")  # what it says for itself
        if process.returncode == 0:
            self.finish()
        return f"exit {process.returncode}"

    def finish(self) -> None:
        """To the end, if it is not there yet; every row where it belongs; and nothing left."""
        from tests.label.test_run import same_rows

        said = self.job.run()
        if said.returncode:
            return self.wrong(said.stderr)
        try:
            same_rows(self.job.table(), self.expected)
            assert not self.job.leftovers(), self.job.leftovers()
        except AssertionError as e:
            self.wrong(str(e))
        self.counts["finished"] += 1
        shutil.rmtree(self.job.output)

    def wrong(self, what: Any) -> None:
        print("WRONG:", what, flush=True)
        self.counts["wrong"] += 1


if __name__ == "__main__":
    sys.exit(main())
