"""The fault matrix (`tests/benchmarks/faults.py`, which plays it whole): a few of its cases, chosen anew each time and told."""

import random
import subprocess

import pytest

from tests.support.fault_cases import Case, staged, wrong
from tests.support.models import TINY, signal_model
from tests.support.nights_engine import Engine
from tests.support.nights_images import Model

CASES = 6  # of each pair, besides its last kill


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder)
    with Engine(Model(folder)) as engine:
        yield engine


@pytest.mark.parametrize(
    ("command", "store"), [("run", "disk"), ("night", "memory"), ("compact", "plain"), ("rescore", "disk"), ("push", "disk")]
)
def test_a_command_that_was_disturbed_ends_well_the_next_time(engine, tmp_path, command, store):
    seed = random.SystemRandom().randrange(10**6)
    with staged(engine, tmp_path, command, store) as stage:
        cases = list(stage.cases())
        last = [case for case in cases if case.what.startswith("kill")][-1:]
        for case in [*last, *random.Random(seed).sample(cases, CASES)]:
            _, why = wrong(stage, case)
            assert not why, f"python -m tests.benchmarks.faults {case}\n{why}"


def test_retrying_errors_goes_on_with_what_a_killed_one_had_cut_out_of_merged_files(engine, tmp_path):
    with staged(engine, tmp_path, "retry", "disk") as stage:
        at = next(at for at, made in enumerate(stage.trace, 1) if made == ("replace", "/files.parquet"))
        _, why = wrong(stage, Case("retry", "disk", at, "kill before"))
        assert not why, why


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few MB; mounting one takes root's rights."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("command", ["run", "night", "compact"])
def test_a_disk_that_fills_and_is_freed_costs_nothing(engine, small_disk, command):
    with staged(engine, small_disk, command, "disk") as stage:
        ends = [stage.fill(kilobytes << 10) for kilobytes in (0, 4, 12, 24, 48, 4096)]
    assert all("No space left on device" in end and end.startswith("failed") for end in ends[:1]), ends
    assert ends[-1] == stage.end
