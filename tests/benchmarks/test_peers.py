"""The benchmarks against peers run, on a few images and a tiny model; their figures are read by people, not asserted."""

import io
import sys

import pytest
from PIL import Image

from tests.benchmarks import peers, scale
from tests.benchmarks.images import encoded, read_images, write_shards

IMAGES = 12


def test_images_are_like_photographs_and_always_the_same():
    one, other = encoded(3), encoded(4)
    assert one == encoded(3) and one != other and 40_000 < len(one) < 250_000
    width, height = Image.open(io.BytesIO(one)).size
    assert min(width, height) >= 340 and max(width, height) < 550


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    return folder, *peers.prepare(folder, "tiny", IMAGES, 2)


def test_shards_hold_every_image_once(data):
    assert read_images(data[1]) == [encoded(i) for i in range(IMAGES)]
    before = [file.stat().st_mtime_ns for file in data[1].iterdir()]
    write_shards(data[1], IMAGES, 2)
    assert before == [file.stat().st_mtime_ns for file in data[1].iterdir()]  # made once


@pytest.mark.parametrize("name", ["bound", "transformers pipeline"])
def test_a_peer_labels_every_image(name, data, tmp_path):
    found = peers.measure(peers.command_of(name, data[1], data[2], tmp_path, 4), IMAGES, None)
    assert found["wall"] > found["start_up"] > 0 and found["memory"] > 50e6
    assert list(tmp_path.glob("*.parquet"))


def test_a_peer_that_loses_images_is_found_out(data, tmp_path):
    command = [sys.executable, "-c", """print('{"rows": 3, "time": 1.0}')"""]
    with pytest.raises(SystemExit, match=f"labelled 3 of {IMAGES} images"):
        peers.measure(command, IMAGES, None)
    with pytest.raises(SystemExit, match="no such thing"):
        peers.measure([sys.executable, "-c", "raise SystemExit('no such thing')"], IMAGES, None)


def test_figures():
    one = [peers.Event(14.0, 8), peers.Event(10.0, 4), peers.Event(12.0, 8)]
    assert peers.figures(one, began=7.0) == {"images_per_second": 16 / 4, "start_up": 3.0}
    other = [peers.Event(13.0, 4, 1), peers.Event(15.0, 6, 1)]
    assert peers.figures(one + other, began=7.0)["images_per_second"] == 16 / 4 + 6 / 2
    rows = [
        {"images_per_second": rate, "cpu_ms_per_image": 5.0, "start_up": 1.0, "wall": 2.0, "memory": 3e9}
        for rate in (5.0, 9.0, 7.0)
    ]
    assert peers.median(rows)["images_per_second"] == 7.0
    ours = {"images_per_second": 20.0, "cpu_ms_per_image": 5.0, "start_up": 1.0, "wall": 2.0, "memory": 1e9}
    cells = peers.table("tiny", {"ours": ours, "other": peers.median(rows)}).columns
    assert list(cells[2].cells) == ["1.00", "2.86"]


def test_processor_time_between_two_moments():
    tree = peers.Tree()
    tree.totals = [(10.0, 1.0), (11.0, 2.0), (12.0, 4.0)]
    assert tree.cpu_between(10.5, 12.0) == pytest.approx(2.5)


def test_a_large_table_is_planned_and_grown_without_reading_it(data, checkpoint):
    found = scale.large_plan(data[0], checkpoint, 12, 2)
    assert (found["chunks"], found["shards"], found["labelled"]) == (12, 6, 2)
    assert all(found[f"{what}_seconds"] > 0 and found[f"{what}_memory"] > 0 for what in ("plan", "nothing_new", "one_new_shard"))
