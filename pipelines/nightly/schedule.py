"""A job for every night, whoever runs it: systemd.py, crontab.py, hf_jobs.py. (KubeRay, Slurm: submit/.)"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from levit_batch.errors import ConfigError, JobError
from pipelines.nightly.cron import Cron

LOCK_WAIT = 300  # seconds: longer than a dead holder's claim lives
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # a crontab need not be UTF-8, and its lines stay as they are


@dataclass(frozen=True)
class Nightly:
    """One scheduled job on this machine. config and folder are absolute: relative paths in it start at `folder`."""

    name: str
    config: Path
    overrides: tuple[str, ...]
    folder: Path
    cron: Cron
    fail_on_drift: bool = False
    hours: float = 20.0  # after which a night is ended

    @property
    def command(self) -> list[str]:
        """The command with absolute paths: a scheduler knows neither this shell's PATH nor its folder."""
        settings = [f"--set={item}" for item in self.overrides]
        drift = ["--fail-on-drift"] if self.fail_on_drift else []
        return [*program(), "nightly", str(self.config), f"--wait-for-lock={LOCK_WAIT}", *drift, *settings]


def program() -> list[str]:
    """The `levit-batch` beside this Python, or, where it is not installed, the module."""
    beside = Path(sys.executable).parent / "levit-batch"
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "pipelines.cli"]


def which(program: str) -> str:
    path = shutil.which(program)
    if not path:
        raise ConfigError(
            f"--install: {program} is not on this machine; leave --install out and install what is printed"
        )
    return path


def call(command: list[str], otherwise: str, text: str | None = None) -> None:
    which(command[0])
    done = subprocess.run(command, input=text, capture_output=True, **TEXT)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise JobError(f"{' '.join(command)}: {reason[-1]}; {otherwise}")
