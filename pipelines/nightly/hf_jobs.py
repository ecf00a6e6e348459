"""A job every night by Hugging Face Jobs: the command that schedules it there."""

import json
import math
import posixpath
import re
import shlex
from datetime import UTC, datetime
from typing import Any

from levit_batch.errors import ConfigError
from levit_batch.job.config import JobConfig
from levit_batch.job.load import VARIABLE
from pipelines.cluster.session import local_paths
from pipelines.nightly.schedule import LOCK_WAIT, Nightly
from pipelines.submit.ship import check_secrets


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
