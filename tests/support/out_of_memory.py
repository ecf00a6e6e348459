"""The kernel kills a process for want of memory, here and now: needs leave to make a control group."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
# Where memory is limited, how, and where the kernel counts whom it killed: version 1 and version 2.
VERSIONS = ((GROUPS / "memory", "memory.limit_in_bytes", "memory.oom_control"), (GROUPS, "memory.max", "memory.events"))
LITTLE = 64 << 10  # bytes that the process may still take: what it has stays with the group it came from


class Starved:
    """A process in a control group of its own."""

    def __init__(self, folder: Path, counted: str):
        self.folder, self.counted = folder, folder / counted

    def killed(self) -> bool:
        """Whether the kernel has killed it for memory."""
        return "oom_kill 1" in self.counted.read_text().splitlines()


@contextlib.contextmanager
def starved(pid: int) -> Iterator[Starved | None]:
    """Process `pid` gets no more memory, and dies of it when it next asks for some. None: this machine does not let us."""
    for root, limit, counted in VERSIONS:
        folder = root / f"levit-batch-{pid}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(LITTLE))
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError:
            folder.rmdir()
            continue
        try:
            yield Starved(folder, counted)
        finally:
            _remove(folder)
        return
    yield None


def _remove(folder: Path) -> None:
    """As soon as the process is gone."""
    from tests.support.jobs import wait_for

    def removed() -> bool:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return not folder.exists()

    wait_for(removed, 30)
