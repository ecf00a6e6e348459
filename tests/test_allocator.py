import platform
import subprocess
import sys

from levit_batch.allocator import keep_memory

# Page faults of allocating and touching 8 MB, 50 times over, after one warm-up.
FAULTS = """
import resource, sys
from levit_batch.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
import numpy as np
np.ones(1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout)


def test_memory_stays_in_the_process():
    if platform.libc_ver()[0] != "glibc":
        assert keep_memory() is False
        return
    assert faults("keep") * 5 < faults("plain")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert keep_memory() is False
