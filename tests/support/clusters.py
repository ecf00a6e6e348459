"""Clusters on this machine: several Ray nodes, each a process of its own, that can be killed."""

import contextlib
from collections.abc import Iterator

from ray.cluster_utils import Cluster

STORE = 100_000_000
# A dead node is noticed after a second or two, and a slow one is not taken for dead.
HEALTH = {"health_check_period_ms": 300, "health_check_failure_threshold": 5, "health_check_timeout_ms": 30_000}


@contextlib.contextmanager
def running(**head) -> Iterator[Cluster]:
    """A cluster of a head only; `add_node` makes it larger."""
    arguments = {"object_store_memory": STORE, "include_dashboard": False, "_system_config": HEALTH} | head
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    try:
        yield cluster
    finally:
        cluster.shutdown()
