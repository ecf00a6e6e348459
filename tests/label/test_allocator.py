import platform
import subprocess
import sys

from pipelines.label.process import keep_memory, return_memory

# Page faults of allocating and touching 8 MB, 50 times over, after one warm-up.
FAULTS = """
import resource, sys
from pipelines.label.process import keep_memory
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


# MB of 60,000 small blocks that stay in the process when they are freed, one at the end being held, and then are returned.
RETURNED = """
import os
import numpy as np
from pipelines.label.process import return_memory
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
blocks = [np.ones(4096, np.uint8) for _ in range(60_000)]
last = blocks[-1]
del blocks
before = resident()
assert return_memory()
print((before - resident()) // 1_000_000)
"""


def test_freed_memory_goes_back_to_the_kernel():
    if platform.libc_ver()[0] != "glibc":
        assert return_memory() is False
        return
    ended = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, check=True)
    assert int(ended.stdout) > 150


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert keep_memory() is False
    assert return_memory() is False
