"""A job sent to a running cluster through the Ray Jobs API: submitted, watched, read, stopped."""

import asyncio
import logging
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from levit_batch.errors import ConfigError, JobError
from levit_batch.job.config import JobConfig
from levit_batch.storage.redact import redact
from pipelines.submit.job_env import hand_over
from pipelines.submit.ship import CONFIG_NAME, START_NAME, environment, ship
from pipelines.submit.token import own_token

RUNNING = ("PENDING", "RUNNING")
OLDEST_RAY = (2, 59)  # has what pipelines/label/ray_execution.py asks of a pool of actors
POLL = 1.0  # seconds between two looks at a job
SILENCE = 60.0  # seconds that a cluster may not answer before it counts as gone
STOP_WAIT = 60.0
MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'", re.MULTILINE)
FAILED = "entrypoint command failed"  # in Ray's words, before the last lines of the log


class Jobs:
    """The jobs of this package on the cluster whose dashboard is at `address`. Raises ConfigError when it is not there."""

    def __init__(self, address: str):
        logging.getLogger("ray.dashboard").setLevel(logging.WARNING)  # it tells of every package it uploads
        self.address = address.rstrip("/")
        try:
            self.client = _client(self.address)
        except (ConnectionError, RuntimeError, ValueError) as e:
            if "ray[default]" in str(e):
                raise ConfigError("clusters need a package more: pip install 'levit-batch[cluster]'") from None
            raise ConfigError(
                f"--address: no Ray dashboard answers at {address} ({_first_line(e)}); it looks like http://HEAD:8265"
            ) from None

    def check_version(self) -> str | None:
        """Raises ConfigError for a Ray that this package cannot use; returns a warning for one that is not ours."""
        import ray

        there = self.client._do_request("GET", "/api/version").json()["ray_version"]
        version = tuple(int(part) for part in there.split(".")[:2] if part.isdigit())
        if version < OLDEST_RAY:
            raise ConfigError(
                f"--address {self.address}: Ray {there} is older than {'.'.join(map(str, OLDEST_RAY))}; update it"
            )
        if there.split(".")[:2] == ray.__version__.split(".")[:2]:
            return None
        return f"the cluster has Ray {there}, this machine {ray.__version__}; the job runs on the cluster's"

    def list(self) -> list[Any]:
        """Details of every job that this package submitted, oldest first."""
        ours = [job for job in self.client.list_jobs() if (job.metadata or {}).get("levit_batch")]
        return sorted(ours, key=lambda job: job.start_time or 0)

    def find(self, name: str) -> Any:
        """The newest job of that name, or the one with that id. Raises ConfigError."""
        for job in reversed(self.list()):
            if name in (job.submission_id, job.metadata["name"]):
                return job
        known = ", ".join(dict.fromkeys(job.metadata["name"] for job in self.list())) or "none"
        raise ConfigError(f"no job {name} at {self.address}; there: {known}")

    def free_id(self, name: str) -> str:
        """An id for another job of that name. Raises ConfigError while one of that name is under way."""
        same = [job for job in self.list() if job.metadata["name"] == name]
        for job in same:
            if job.status in RUNNING:
                raise ConfigError(
                    f"job {name} is {job.status} at {self.address} since {when(job.start_time)}; `levit-batch status {name}` "
                    "and `logs` show it, `stop` ends it, --name gives this one another name"
                )
        taken = {job.submission_id for job in self.list()}
        return next(i for i in (f"{name}-{n}" if n else name for n in range(len(taken) + 1)) if i not in taken)


def _client(address: str) -> Any:
    """A JobSubmissionClient, with the user's own token where the head wants one. Raises ConfigError where it has another."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    with suppress(AuthenticationError):
        return JobSubmissionClient(address)
    token = own_token(address)
    with suppress(AuthenticationError):
        if token:
            return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
    raise ConfigError(
        f"--address: {address} asks for the cluster's token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
        "where it is not the one in ~/.ray/auth_token"
    )


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
            return jobs.client.submit_job(
                entrypoint=shlex.join([*python, "-m", "pipelines.cli", command[0], CONFIG_NAME, *command[1:]]),
                submission_id=job_id,
                runtime_env=runtime_env,
                metadata={"levit_batch": "1", "name": name, "output": redact(config.output.path)},
            )
        except RuntimeError as e:
            raise ConfigError(f"--address {jobs.address}: the job was not taken: {_first_line(e)}") from None


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
                    f"the cluster at {jobs.address} does not answer any more ({_first_line(e)}); what is written stays: submit "
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


def exit_code(job: Any) -> int:
    """The code that the job's own command ended with."""
    if job.status == "SUCCEEDED":
        return 0
    return job.driver_exit_code if job.driver_exit_code and job.driver_exit_code > 0 else 1


def as_json(job: Any) -> dict[str, Any]:
    """What `status` tells of a job; never its environment."""
    return {
        "job": job.submission_id,
        "name": job.metadata["name"],
        "status": str(job.status.value),
        "exit_code": exit_code(job) if job.status not in RUNNING else None,
        "started": when(job.start_time),
        "ended": when(job.end_time),
        "output": job.metadata.get("output"),
        "message": redact(why(job.message or "")),
    }


def why(message: str) -> str:
    """What Ray says of a job that has ended, in one line: how its log ends where its own command failed."""
    if missing := MISSING.search(message):
        return (
            f"the cluster's Python has no module {missing[1]}: say --pip to have what the package needs installed there, or make "
            "the nodes from pipelines/Dockerfile and say --image-has-it"
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    return lines[-1 if FAILED in lines[0] else 0][:300]


def table(jobs: list[dict[str, Any]]) -> Iterator[str]:
    """The jobs as lines of a table."""
    columns = ("job", "status", "exit_code", "started", "ended", "output")
    rows = [columns, *([str("-" if job[c] is None else job[c]) for c in columns] for job in jobs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def when(milliseconds: int | None) -> str | None:
    return milliseconds and datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
