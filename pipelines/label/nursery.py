"""A process that becomes a replica whenever it is asked to: `python -m pipelines.label.nursery PIPE`.

It imports what a replica needs, torch above all, while the driver loads the model, and forks: replica after replica begins at
once, and the model's weights are in memory once. Nothing here may start a thread before that, so the backends, which do, are
imported by the replicas. On file descriptor PIPE comes the pickled model, then the pickled `Work`, then for each replica the
file descriptor of its own pipe:
    from the driver    a chunk's descriptor, pickled, two at once
    to the driver      READY, or why the replica could not be made; then the record of each chunk, as JSON, as it is finished
When the driver is gone, however it ended, so is everything here.
"""

import contextlib
import importlib
import os
import pickle
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, NoReturn

from levit_batch.job.chunks import chunk_table
from pipelines.label.process import quick_imports
from pipelines.label.replica import Replica
from pipelines.label.work import RECORD

READY = b""
THREADS = 2  # one computes, the other reads and writes: see `Replica`
USED = ("pipelines.label.decoder", "pipelines.label.watch", "levit_batch.inference.predict", "levit_batch.inference.fold")


def main(pipe: Connection) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for a replica waits at its pipe
    with contextlib.suppress(EOFError, OSError):
        with quick_imports():
            for name in USED:
                importlib.import_module(name)
            model, work = pickle.loads(pipe.recv_bytes()), pipe.recv_bytes()
        while True:
            theirs = recv_handle(pipe)
            if os.fork() == 0:
                pipe.close()
                be_replica(Connection(theirs), model, work)
            os.close(theirs)
    os.killpg(0, signal.SIGKILL)


def be_replica(pipe: Connection, model: Any, work: bytes) -> NoReturn:
    """Label what comes through `pipe` until it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, the kernel ends a replica, which is counted, and not the driver
    try:
        replica = Replica(pickle.loads(work), model)  # here: a source may open a store, whose threads no fork takes along
    except Exception:
        pipe.send_bytes(traceback.format_exc().encode())
        os._exit(1)
    pipe.send_bytes(READY)
    turns = threading.Lock(), threading.Lock()
    for _ in range(THREADS - 1):
        threading.Thread(target=label, args=(pipe, replica, *turns), daemon=True).start()
    label(pipe, replica, *turns)


def label(pipe: Connection, replica: Replica, receiving: threading.Lock, sending: threading.Lock) -> NoReturn:
    """Chunk after chunk, in one of the replica's threads. What it does not expect ends the process: an attempt."""
    try:
        while True:
            with receiving:
                chunk = pickle.loads(pipe.recv_bytes())
            for made in replica(chunk_table([chunk])):
                with sending:
                    pipe.send_bytes(made[RECORD][0].as_py().encode())
    except EOFError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
