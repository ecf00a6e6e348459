"""Parts of two photographs, a tenth of them with the other one's name: what a model that learnt from other parts suspects."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.results.near.review import NEAR, review
from pipelines.finetune.run import finetune
from tests.support.images import CHINA, FLOWER
from tests.support.labelled import DIGITS_MODEL, labelled
from tests.support.trainings import config

NAMES, PARTS, WRONG, SIDE = ("china", "flower"), 400, 40, 96


def parts(random: np.random.Generator) -> list[tuple[bytes, int]]:
    """Encoded parts and which photograph each is of."""
    photographs, made = [each.convert("RGB") for each in (CHINA, FLOWER)], []
    for i in range(PARTS):
        whole, buffer = photographs[i % 2], io.BytesIO()
        left, top = (int(random.integers(0, edge - SIDE)) for edge in whole.size)
        whole.crop((left, top, left + SIDE, top + SIDE)).save(buffer, "JPEG", quality=90)
        made.append((buffer.getvalue(), i % 2))
    return made


def write(file: Path, images: tuple[bytes, ...], labels: list[int]) -> Path:
    pq.write_table(pa.table({"image": [{"bytes": each, "path": None} for each in images], "label": labels}), file)
    return file


def test_planted_wrong_labels(tmp_path):
    random, names = np.random.default_rng(5), tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    learnt = write(tmp_path / "learnt.parquet", *zip(*parts(random), strict=True))
    source = ("source.limit=null", "source.teacher_column=null", f"source.class_names={names}", f"source.path={learnt}")
    fast = (f"model={{checkpoint: {DIGITS_MODEL}}}", "train.epochs=6", "train.learning_rate=0.002", "train.batch_size=32")
    finetune(config(tmp_path / "head", *source, *fast, small=False))

    images, right = zip(*parts(random), strict=True)
    wrong = set(random.permutation(PARTS)[:WRONG].tolist())
    file = write(tmp_path / "photographs.parquet", images, [name ^ (i in wrong) for i, name in enumerate(right)])
    sections = {"source": {"path": str(file), "class_names": str(names)}, "predict": {"top_k": 2}}
    output = labelled(tmp_path / "job", model={"checkpoint": str(tmp_path / "head"), "backend": "torch"}, **sections)
    review(output, NEAR, lambda *_: None)
    table = pq.read_table(tmp_path / "job/out/review.parquet")
    suspected = set(table.filter(table["suspected_label"].is_valid())["row"].to_pylist())
    recall, precision = len(suspected & wrong) / WRONG, len(suspected & wrong) / len(suspected)
    print(f"wrong labels of photographs: recall {recall:.3f}, precision {precision:.3f} of {len(suspected)}")
    assert recall >= 0.7 and precision >= 0.7
