"""The jobs of this package on a cluster: found by name, numbered, its Ray checked."""

import logging
from contextlib import suppress
from typing import Any

from levit_batch.errors import ConfigError
from pipelines.submit.report import RUNNING, when
from pipelines.submit.token import own_token

AGENT_TRIES = 6  # at a head whose agents are not up yet: it says so, and takes nothing, after ten seconds
OLDEST_RAY = (2, 59)  # has what pipelines/label/ray_execution.py asks of a pool of actors


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
                f"--address: no Ray dashboard answers at {address} ({first_line(e)}); it looks like http://HEAD:8265"
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

    def submit(self, **job: Any) -> str:
        """`JobSubmissionClient.submit_job`, also where the cluster is in its first minute. Raises RuntimeError."""
        for _ in range(AGENT_TRIES - 1):
            try:
                return self.client.submit_job(**job)
            except RuntimeError as e:
                if "No available agent" not in str(e):
                    raise
        return self.client.submit_job(**job)

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


def first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
