"""The rows worth a look are those that a scan of the whole table finds, with pictures of them, and hardly any are kept."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from levit_batch.job.chunks import Chunk
from levit_batch.job.row import TARGET
from levit_batch.results.looks import ERRORS, Looks
from levit_batch.results.naming import Naming
from pipelines.label.watch import Album
from pipelines.label.work import Part

NAMING = Naming([f"class {i}" for i in range(5)], "file_name")
ROWS, CHUNKS = 200, 12


def chunk(rng, i, ties):
    """A chunk under way as a replica has it: its part, batches of pixels with logits, and the table that becomes of it.

    Every pixel of a row's image has the value of its place in the chunk.
    """
    part = Part(Chunk("s", "", "0" * 8, i * ROWS, (i + 1) * ROWS), 0.0)
    part.errors = ["decode: broken" if rng.random() < 0.1 else None for _ in range(ROWS)]
    target = rng.integers(-1, 5, ROWS)
    good = [k for k, error in enumerate(part.errors) if error is None]
    logits = rng.normal(size=(len(good), 5)).astype(np.float32) * (60 if ties else 3)  # scores of exactly 1, many
    pixels = np.broadcast_to(np.array(good, np.uint8)[:, None, None, None], (len(good), 224, 224, 3))
    best = torch.from_numpy(logits).softmax(-1).max(-1)
    label, score = np.zeros(ROWS, int), np.zeros(ROWS, np.float32)
    label[good], score[good] = best.indices.numpy(), best.values.numpy()
    bad = np.array([error is not None for error in part.errors])
    table = pa.table(
        {
            "shard": ["s"] * ROWS, "row": range(i * ROWS, (i + 1) * ROWS),
            "file_name": [f"{n}.png" for n in range(i * ROWS, (i + 1) * ROWS)], "target": target,
            "label": pa.array(label, mask=bad), "label_name": pa.array([NAMING.classes[k] for k in label], mask=bad),
            "score": pa.array(score, mask=bad), "error": part.errors,
        }
    )  # fmt: skip
    return part, target, pixels, logits, table


@pytest.mark.parametrize("ties", [False, True])
def test_the_picks_are_those_of_a_scan_and_have_their_pictures(ties):
    rng, album, tables, sent = np.random.default_rng(5), Album(NAMING), [], []
    for i in range(CHUNKS):
        part, target, pixels, logits, table = chunk(rng, i, ties)
        watch, at = album.watch(part), 0
        for first in range(0, ROWS, 64):  # tables come as they are read, batches as they are full
            part.tables.append(pa.table({TARGET: target[first : first + 64]}))
            good = sum(error is None for error in part.errors[first : first + 64])
            watch(pixels[at : at + good], logits[at : at + good])
            at += good
        new = album.add(table, watch)
        assert all((pick["image"] is None) == (pick["group"] == ERRORS) for pick in new)
        sent.append(new)
        tables.append(table)
    scanned, merged = Looks(), Looks()
    for table in tables:
        scanned.add(table, NAMING, "0" * 8)
    for picks in reversed(sent):  # in whatever order they come
        merged.merge(picks)

    def known(picks):
        return [{name: value for name, value in pick.items() if name not in ("image", "note")} for pick in picks]

    assert known(merged.picks()) == known(scanned.picks()) and len(merged.picks()) == 12 * 3 + 3
    for pick in merged.picks():
        assert pick["name"] == f"{pick['row']}.png"
        if pick["error"] is None:
            image = np.asarray(Image.open(io.BytesIO(pick["image"])))
            assert image.shape == (160, 160, 3) and np.abs(image.astype(int) - pick["row"] % ROWS).max() <= 2
    assert len(sent[-1]) < len(sent[0]) or ties, "the longer a job runs the less there is to keep"


def test_a_target_that_is_none_is_no_mistake():
    table = pa.table(
        {
            "shard": ["s"] * 3, "row": [0, 1, 2], "target": [-1, None, 2], "label": [0, 0, 0], "label_name": ["a"] * 3,
            "score": pa.array([0.9, 0.9, 0.9], pa.float32()), "error": pa.nulls(3, pa.string()),
        }
    )  # fmt: skip
    looks = Looks()
    looks.add(table, NAMING, "0" * 8)
    mistakes = [pick["row"] for pick in looks.picks() if pick["group"] == "surest mistakes"]
    assert mistakes == [2]
