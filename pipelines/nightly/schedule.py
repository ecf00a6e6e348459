"""What systemd, cron or Hugging Face Jobs need to run a job every night. (KubeRay: manifest.py.)"""

import json
import math
import os
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from levit_batch.errors import ConfigError, JobError
from levit_batch.job.config import JobConfig
from levit_batch.job.load import VARIABLE
from pipelines.cluster.session import local_paths
from pipelines.nightly.cron import Cron
from pipelines.nightly.run import LOCKED
from pipelines.submit.ship import check_secrets

LOCK_WAIT = 300  # seconds: longer than a dead holder's claim lives
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # a crontab need not be UTF-8, and its lines stay as they are
STOP_SECONDS = 120  # from the signal until a run is killed: chunks under way are given up at once


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


def systemd_units(job: Nightly) -> dict[str, str]:
    """The service and the timer, by file name."""
    command = " ".join(systemd_quote(part) for part in job.command)
    calendar = "\n".join(f"OnCalendar={line}" for line in job.cron.on_calendar())
    service = f"""[Unit]
Description=levit-batch: label what is new ({job.name})
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={str(job.folder).replace("%", "%%")}
ExecStart={command}
# Tokens, one NAME=VALUE a line, readable by you alone; the leading dash: the file need not exist.
EnvironmentFile=-%E/levit-batch/{job.name}.env
# {LOCKED}: another run was at it; it is not a failure.
SuccessExitStatus={LOCKED}
KillSignal=SIGTERM
KillMode=mixed
TimeoutStartSec={job.hours:g}h
TimeoutStopSec={STOP_SECONDS}
Nice=5
"""
    timer = f"""[Unit]
Description=levit-batch every night ({job.name})

[Timer]
{calendar}
# A night that the machine slept through is made up for.
Persistent=true
RandomizedDelaySec=60

[Install]
WantedBy=timers.target
"""
    return {f"{job.name}.service": service, f"{job.name}.timer": timer}


def systemd_quote(text: str) -> str:
    """One argument of ExecStart: no specifiers, no variables, no splitting."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(c in text for c in " \t'\"\\;") else text


def systemd_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def install_systemd(job: Nightly) -> str:
    """Write the units for this user and start the timer. Raises JobError where systemd does not take it."""
    folder = systemd_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in systemd_units(job).items():
        (folder / name).write_text(text)
    for command in (
        ["systemctl", "--user", "daemon-reload"],
        ["systemctl", "--user", "enable", "--now", f"{job.name}.timer"],
    ):
        call(command, f"the units are in {folder}, but the timer is not started")
    return (
        f"installed {job.name}.timer in {folder}; systemctl --user list-timers shows it, journalctl --user -u {job.name} its "
        "logs. loginctl enable-linger lets it run while you are logged out"
    )


def cron_lines(job: Nightly, log: Path, zone: str = '""') -> str:
    """A block of a crontab, after which the time zone `zone` holds again. The run's own lock keeps two nights apart; `flock` also
    keeps them from queueing up."""
    lock = shlex.quote(str(log.with_suffix(".lock")))
    command = f"cd {shlex.quote(str(job.folder))} && {shlex.join(job.command)} >> {shlex.quote(str(log))} 2>&1"
    whole = f"flock -n -E {LOCKED} {lock} sh -c {shlex.quote(command)}".replace("%", "\\%")
    return (
        f"# levit-batch {job.name}: begin. CRON_TZ is cronie's; Debian's cron ignores it and takes the system's time zone.\n"
        f"CRON_TZ={job.cron.timezone}\n{job.cron} {whole}\nCRON_TZ={zone}\n# levit-batch {job.name}: end\n"
    )


def install_cron(job: Nightly, log: Path) -> str:
    """Put the block at the end of this user's crontab, in the place of an older one of the same name. Raises JobError.

    The crontab as it was is kept beside the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = read_crontab()
    others = without(before, job.name)
    zones = re.findall(r"^CRON_TZ=(.+)$", others, re.MULTILINE)
    after = others + cron_lines(job, log, *zones[-1:])
    kept = log.with_suffix(".crontab-before")
    kept.write_text(before, **TEXT)
    call([which("crontab"), "-"], f"what the crontab was is in {kept}", after)
    if not read_crontab().endswith(after):
        raise JobError(f"crontab did not keep what was written to it; what it was is in {kept}")
    return f"installed in the crontab, which was before as in {kept}; what the job prints goes to {log}"


def read_crontab() -> str:
    """This user's crontab, "" where there is none. Raises JobError when it cannot be read: an unread one must not be replaced."""
    environment = os.environ | {"LC_ALL": "C"}
    listed = subprocess.run([which("crontab"), "-l"], capture_output=True, env=environment, **TEXT)
    if listed.returncode and "no crontab for" not in listed.stderr:
        lines = listed.stderr.strip().splitlines() or [f"exit code {listed.returncode}"]
        raise JobError(f"crontab -l: {lines[-1]}; nothing is changed: without --install the lines are printed")
    return "" if listed.returncode else listed.stdout


def without(crontab: str, name: str) -> str:
    """`crontab` without the block of the job `name`. Raises JobError for a block without its last line."""
    kept, inside = [], False
    begin, end = f"# levit-batch {name}: begin", f"# levit-batch {name}: end"
    for line in crontab.removesuffix("\n").split("\n") if crontab else []:
        if line.startswith(begin):
            if inside:
                break
            inside = True
        elif inside and line == end:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise JobError(f'the crontab has "{begin}" without "{end}" below it: mend it with crontab -e; nothing is changed')
    return "".join(f"{line}\n" for line in kept)


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


def hf_command(
    config: JobConfig,
    values: dict[str, Any],
    job: Nightly,
    image: str,
    flavor: str,
    secrets: list[str],
    volumes: list[str],
) -> str:
    """The `hf jobs scheduled run` command. The configuration (`values`, as YAML has it) travels in an environment variable.

    volumes: what is mounted, hf://buckets/OWNER/NAME:/FOLDER. Raises ConfigError for local paths that lie in none of them,
    and for a time that is no single cron line in UTC, which is what the Hub goes by.
    """
    mounts = [_mount(volume) for volume in volumes]
    for key, path in local_paths(config):
        if not any(posixpath.normpath(path).startswith(mount + "/") for mount in mounts):
            raise ConfigError(
                f"{key}: {path} is a local path, which Hugging Face's machines do not have; use hf:// or s3://, or a folder that "
                "is mounted there: --volume hf://buckets/OWNER/NAME:/FOLDER"
            )
    check_secrets(values)
    text = json.dumps(values, ensure_ascii=False)
    needed = [match["name"] for match in VARIABLE.finditer(text) if match["default"] is None]
    drift = " --fail-on-drift" if job.fail_on_drift else ""
    inner = (
        f'printf %s "$JOB" > /tmp/job.yaml && exec levit-batch nightly /tmp/job.yaml --wait-for-lock={LOCK_WAIT}{drift}'
    )
    options = [f"--name={job.name}", f"--flavor={flavor}", f"--timeout={math.ceil(job.hours)}h", "--no-concurrency"]
    options += [f"--volume={volume}" for volume in volumes]
    options += [part for name in dict.fromkeys([*secrets, *needed]) for part in ("--secrets", name)]
    line = job.cron.in_utc(datetime.now(UTC))
    note = f"# {job.cron} {job.cron.timezone} is this in UTC now; clock changes move it\n"
    command = ["hf", "jobs", "scheduled", "run", *options, "--env", f"JOB={text}", line, image, "sh", "-c", inner]
    return ("" if job.cron.timezone == "UTC" else note) + shlex.join(command) + "\n"


def _mount(volume: str) -> str:
    """The folder of hf://buckets/OWNER/NAME:/FOLDER, or of the same with :ro or :rw."""
    source, _, folder = re.sub(":r[ow]$", "", volume).rpartition(":")
    if not source.startswith("hf://") or not folder.startswith("/"):
        raise ConfigError(f"--volume {volume}: write it as hf://buckets/OWNER/NAME:/FOLDER")
    return posixpath.normpath(folder)
