"""Ends an execution that has no replica left and no room for one, so that the job goes on with what fits now, or ends.

Ray restarts a dead replica and replays its tasks, for ever, once there is room; and replicas that have nothing more to do
make room. Only when a node took all replicas with it does nothing happen any more; or, where Ray was started for the job, when
each replica ends as it starts. With a Ray of other internals nobody looks.
"""

import time

from ray.data import DataContext

from levit_batch.errors import causes

try:
    from ray.data._internal.execution.execution_callback import ExecutionCallback
except ImportError:
    ExecutionCallback = object

PATIENCE = 60.0  # seconds for the first replica to restart; it takes about ten, mostly for importing torch
START_PATIENCE = 300.0  # seconds for the first replica to start, where there is room: a slow disk may take long to import torch


class ReplicasLost(Exception):
    """All replicas have been waiting to start, or to start again, for too long."""


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
        elif time.monotonic() - self.since > self.patience():
            raise ReplicasLost

    @staticmethod
    def patience() -> float:
        return PATIENCE

    @staticmethod
    def waits(pool) -> bool:
        """Every replica of the pool is to be restarted."""
        return 0 < pool.num_running_actors() == pool.num_restarting_actors()


class LocalSupervisor(Supervisor):
    """Of a Ray that was started for the job: there is room, so a replica that does not start ends at its start."""

    @staticmethod
    def patience() -> float:
        return START_PATIENCE

    @staticmethod
    def waits(pool) -> bool:
        """No replica of the pool lives, and one is to."""
        started, dead = pool.num_running_actors(), pool.num_restarting_actors()
        return started == dead and started + pool.num_pending_actors() > 0


def supervise(context: DataContext, local: bool) -> None:
    """Have every execution under `context` supervised, where this Ray lets callbacks in. local: it was started for the job."""
    classes = getattr(context, "custom_execution_callback_classes", None)
    if classes is not None and ExecutionCallback is not object:
        kept = [one for one in classes if one not in (Supervisor, LocalSupervisor)]
        classes[:] = [*kept, LocalSupervisor if local else Supervisor]


def is_lost(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, is ReplicasLost: Ray Data may wrap it."""
    return any(isinstance(cause, ReplicasLost) for cause in causes(error))


def none_lives() -> str:
    """What to do when LocalSupervisor found no replica alive."""
    import psutil  # Ray's own copy

    return (
        f"no replica lived for {START_PATIENCE / 60:.0f} minutes: each ends as it starts, perhaps for want of memory "
        f"({psutil.virtual_memory().percent:.0f}% of this machine's is taken); free some, run with fewer compute.replicas, or "
        "see what it says: --verbose. What is written stays, and the same command goes on"
    )
