"""A job sent to a running cluster through the Ray Jobs API: submitted, watched, read, stopped."""

import asyncio
import shlex
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from levit_batch.errors import ConfigError, JobError
from levit_batch.job.config import JobConfig
from levit_batch.storage.redact import redact
from pipelines.submit.job_env import hand_over
from pipelines.submit.jobs import Jobs, first_line
from pipelines.submit.report import RUNNING
from pipelines.submit.ship import CONFIG_NAME, START_NAME, environment, ship

POLL = 1.0  # seconds between two looks at a job
SILENCE = 60.0  # seconds that a cluster may not answer before it counts as gone
STOP_WAIT = 60.0


def submit(
    jobs: Jobs,
    path: str,
    config: JobConfig,
    values: dict[str, Any],
    *,
    name: str | None = None,
    command: tuple[str, ...] = ("run",),
    env: list[str] | None = None,
    pip: list[str] | None = None,
    installed: bool = False,
) -> str:
    """Send the job `config`, which `values` is as YAML has it in the file `path`, to the cluster; returns its id.

    Raises ConfigError.
    command: what runs there, `run` or `nightly` and its options. For the rest see `ship`.
    """
    name = name or Path(path).stem
    job_id = jobs.free_id(name)
    with tempfile.TemporaryDirectory(prefix="levit-batch-") as folder:
        runtime_env = ship(config, values, Path(folder), env or [], pip, installed)
        variables = {variable: environment(variable) for variable in env or []}
        python = ["python"] if pip is not None else ["sh", START_NAME]  # for --pip, Ray puts a Python first on the PATH
        try:
            if variables:
                runtime_env["env_vars"] = hand_over(jobs.client, variables)
            return jobs.submit(
                entrypoint=shlex.join([*python, "-m", "pipelines.cli", command[0], CONFIG_NAME, *command[1:]]),
                submission_id=job_id,
                runtime_env=runtime_env,
                metadata={"levit_batch": "1", "name": name, "output": redact(config.output.path)},
            )
        except RuntimeError as e:
            raise ConfigError(f"--address {jobs.address}: the job was not taken: {first_line(e)}") from None


def wait(jobs: Jobs, job_id: str, log: Callable[[str], None] | None = None) -> Any:
    """The details of the job when it has ended; what it prints goes to `log` meanwhile. Raises JobError."""
    if log:
        follow(jobs, job_id, log)
    silent_since = None
    while True:
        try:
            job = jobs.client.get_job_info(job_id)
            silent_since = None
            if job.status not in RUNNING:
                return job
        except (RuntimeError, OSError) as e:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > SILENCE:
                raise JobError(
                    f"the cluster at {jobs.address} does not answer any more ({first_line(e)}); what is written stays: submit "
                    "the job again to go on"
                ) from None
        time.sleep(POLL)


def follow(jobs: Jobs, job_id: str, log: Callable[[str], None]) -> None:
    """What the job prints, from its beginning to its end, or until the cluster goes away."""

    async def tail() -> None:
        async for text in jobs.client.tail_job_logs(job_id):
            log(text)

    with suppress(RuntimeError, OSError, asyncio.TimeoutError):
        asyncio.run(tail())


def stop(jobs: Jobs, name: str) -> Any:
    """Stop the job and return its details; what it wrote stays, and the same job goes on when it is submitted again."""
    job = jobs.find(name)
    if job.status in RUNNING:
        jobs.client.stop_job(job.submission_id)
        deadline = time.monotonic() + STOP_WAIT
        while job.status in RUNNING and time.monotonic() < deadline:
            time.sleep(POLL / 2)
            job = jobs.client.get_job_info(job.submission_id)
    return job
