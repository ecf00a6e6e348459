"""A job every night by systemd: a service and a timer of this user's."""

import os
from pathlib import Path

from pipelines.nightly.run import LOCKED
from pipelines.nightly.schedule import Nightly, call

STOP_SECONDS = 120  # from the signal until a run is killed: chunks under way are given up at once


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
