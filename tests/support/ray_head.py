"""A real Ray head with its dashboard, as `ray start` makes it, on ports and in a folder of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil


class Head:
    """Started when made; `kill` ends it as a power cut would, `close` tidily. Its processes know nothing of this checkout, and
    the PATH nothing of their Python.

    python: another one, with Ray. home: where Ray looks for the user's token; without it the head asks for none.
    """

    def __init__(self, cpus: int = 2, python: str = sys.executable, home: Path | None = None):
        self.folder = tempfile.mkdtemp(prefix="lbray", dir="/tmp")  # short: Ray's sockets have a limit on their path
        ports = free_ports(7)
        self.address = f"http://127.0.0.1:{ports[0]}"
        self.gcs = f"127.0.0.1:{ports[1]}"
        names = ["dashboard-port", "port", "ray-client-server-port", "dashboard-agent-listen-port"]
        names += ["dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port"]
        command = [python, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        command += [f"--num-cpus={cpus}", "--object-store-memory=200000000", f"--temp-dir={self.folder}"]
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
        # Else it depends on what an earlier Ray left in the home folder.
        env |= {"HOME": str(home)} if home else {"RAY_AUTH_MODE": "disabled"}
        env["PATH"] = "/usr/bin:/bin"
        with Path(self.folder, "head.log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                return urllib.request.urlopen(f"{self.address}/api/jobs/", timeout=5).close()
            except urllib.error.HTTPError:  # it asks for a token
                return
            except OSError:
                pass
            assert self.process.poll() is None, Path(self.folder, "head.log").read_text()
            time.sleep(0.3)
        raise TimeoutError(Path(self.folder, "head.log").read_text())

    def kill(self) -> None:
        """SIGKILL for every process of the cluster and of its jobs, at once."""
        for process in [*self._tree(), *self._strays()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _strays(self) -> list[psutil.Process]:
        """Processes of this cluster that are no longer below its root: its folder is in their command line or environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                text = " ".join(process.cmdline()) + " ".join(process.environ().values())
                if self.folder in text and process.pid != os.getpid():
                    found.append(process)
        return found

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
