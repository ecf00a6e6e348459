"""The variables of `levit-batch submit --env`: handed to a job in the memory of the cluster's head, never in a file.

Ray unpacks what travels with a job into folders of every node and leaves it there, readable; and shows a job's environment to
whoever asks. So the values are stored as a package of their own that no node unpacks, and the job's environment has its name.
"""

import atexit
import json
import os
import secrets
from typing import Any

from levit_batch.errors import JobError

ENV_VARIABLE = "LEVIT_BATCH_ENV"
UNKNOWN = "--env: not with this Ray, whose inside has other names; set the variables on the cluster's nodes, or take an older Ray"


def hand_over(client: Any, values: dict[str, str]) -> dict[str, str]:
    """Store `values` at the head that `client`, a JobSubmissionClient, talks to; returns the environment of their job."""
    name = f"_ray_pkg_levit_batch_env_{secrets.token_hex(16)}.zip"
    request = getattr(client, "_do_request", None)
    if request is None:
        raise JobError(UNKNOWN)
    answer = request("PUT", f"/api/packages/gcs/{name}", data=json.dumps(values).encode())
    if answer.status_code != 200:
        raise RuntimeError(f"the head does not take the variables of --env: {answer.text}")
    return {ENV_VARIABLE: f"gcs://{name}"}


def take() -> None:
    """Set the variables in this process, which belongs to the job. When the driver ends, the head forgets them."""
    try:
        from ray._raylet import GcsClient
        from ray.experimental.internal_kv import internal_kv_get_gcs_client
    except ImportError:
        raise JobError(UNKNOWN) from None
    key = os.environ.pop(ENV_VARIABLE).encode()  # a child process inherits the variables themselves
    worker = internal_kv_get_gcs_client()
    head = worker or GcsClient(address=os.environ["RAY_ADDRESS"])
    variables = head.internal_kv_get(key, None)
    if variables is None:
        raise RuntimeError("the variables of --env are not at the head any more: submit the job again")
    os.environ.update(json.loads(variables))
    if worker is None:
        atexit.register(head.internal_kv_del, key, False, None)
