"""A job every night by cron: a block of this user's crontab, of which nothing else changes."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from levit_batch.errors import JobError
from pipelines.nightly.run import LOCKED
from pipelines.nightly.schedule import TEXT, Nightly, call, which


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
