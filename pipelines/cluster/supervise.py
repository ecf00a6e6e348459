"""Ends an execution that has no replica left and no room for one, so that the job goes on with what fits now, or ends.

Ray restarts a dead replica and replays its tasks, for ever, once there is room; and replicas that have nothing more to do
make room. Only when a node took all replicas with it does nothing happen any more. With a Ray of other internals nobody looks.
"""

import time

from ray.data import DataContext

from levit_batch.errors import causes

try:
    from ray.data._internal.execution.execution_callback import ExecutionCallback
except ImportError:
    ExecutionCallback = object

PATIENCE = 60.0  # seconds for the first replica to restart; it takes about ten, mostly for importing torch


class ReplicasLost(Exception):
    """All replicas have been waiting for room to restart for too long."""


class Supervisor(ExecutionCallback):
    """Looks at the pools of one execution at each step of its loop."""

    def __init__(self) -> None:
        self.since: float | None = None

    def on_execution_step(self, executor) -> None:
        try:
            waiting = any(self.waits(pool) for op in executor._topology for pool in op.get_autoscaling_actor_pools())
        except AttributeError:
            return
        if not waiting:
            self.since = None
        elif self.since is None:
            self.since = time.monotonic()
        elif time.monotonic() - self.since > PATIENCE:
            raise ReplicasLost

    @staticmethod
    def waits(pool) -> bool:
        """Every replica of the pool is to be restarted."""
        return 0 < pool.num_running_actors() == pool.num_restarting_actors()


def supervise(context: DataContext) -> None:
    """Have every execution under `context` supervised, where this Ray lets callbacks in."""
    classes = getattr(context, "custom_execution_callback_classes", None)
    if classes is not None and ExecutionCallback is not object and Supervisor not in classes:
        classes.append(Supervisor)


def is_lost(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, is ReplicasLost: Ray Data may wrap it."""
    return any(isinstance(cause, ReplicasLost) for cause in causes(error))
