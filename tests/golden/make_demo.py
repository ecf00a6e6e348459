"""Make the demo's images: scikit-learn's handwritten digits as PNG in Parquet, half to label and half to train on.

    python -m tests.golden.make_demo configs/demo

Needs scikit-learn (in the `test` extra) for its copy of the UCI "Optical Recognition of Handwritten Digits" test set:
1,797 grey images of 8x8 pixels. Each becomes a 32x32 PNG (a pixel is a square of 4x4, dark ink on white). The same
command always makes the same tables. `BROKEN` is every row that is damaged on purpose; its `label` stays the truth.
"""

import argparse
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SEED = 0
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHARDS = {"label": 4, "train": 3}
GROUP_ROWS = 64

# Half -> row number in the half (shards in order) -> what is wrong with it. Spread over shards, chunks and their edges.
BROKEN: dict[str, dict[int, str]] = {
    "label": {0: "truncated", 101: "not-an-image", 224: "null", 345: "empty", 470: "missing", 600: "bomb",
              898: "damaged"},
    "train": {17: "truncated", 400: "null", 700: "not-an-image"},
}  # fmt: skip


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 8, 8] with ink from 0 to 16, and what they show [1797]."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images, loaded.target


def png(ink: np.ndarray) -> bytes:
    """One digit [8, 8] -> an encoded 32x32 grey PNG."""
    grey = np.rint(255 - ink * (255 / 16)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).resize((32, 32), Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return file.getvalue()


def huge_png() -> bytes:
    """A small file that claims to be an image of 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = header, b"IDAT" + zlib.compress(b"\0" * 60_001), b"IEND"
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


# What is wrong -> the bytes that stand in the row; None for no bytes. A `null` row has no image struct at all.
BREAK: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "not-an-image": lambda data: b"<html><body>404 Not Found</body></html>",
    "null": lambda data: None,
    "empty": lambda data: b"",
    "missing": lambda data: None,
    "bomb": lambda data: huge_png(),
    "damaged": lambda data: data[:60] + bytes(255 - byte for byte in data[60:90]) + data[90:],
}


def image_value(index: int, ink: np.ndarray, broken: str | None) -> dict | None:
    """One row of the image column: {"bytes", "path"}; the path of a broken row says what is wrong."""
    if broken == "null":
        return None
    data = png(ink) if broken is None else BREAK[broken](png(ink))
    return {"bytes": data, "path": f"digit-{index:04d}{f'-{broken}' if broken else ''}.png"}


def teacher_answers(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What a support vector machine says of each image [N] that it did not see: five folds."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.svm import SVC

    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    return cross_val_predict(SVC(gamma=0.001), images.reshape(len(images), -1), targets, cv=folds)


SCHEMA_FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": list(NAMES), "_type": "ClassLabel"},
    "teacher": {"names": list(NAMES), "_type": "ClassLabel"},
    "index": {"dtype": "int32", "_type": "Value"},
}
TYPES = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "label": pa.int64(),
    "teacher": pa.int64(),
    "index": pa.int32(),
}


def half_table(half: str, images: np.ndarray, targets: np.ndarray, indices: np.ndarray) -> pa.Table:
    """The rows of one half, broken ones in their places; `index` is the row's number in scikit-learn's set."""
    broken = BROKEN[half]
    values = [image_value(int(i), images[i], broken.get(row)) for row, i in enumerate(indices)]
    columns = {"image": values, "label": targets[indices], "index": indices}
    if half == "train":
        columns["teacher"] = teacher_answers(images[indices], targets[indices])
    names = [name for name in TYPES if name in columns]
    features = {"info": {"features": {name: SCHEMA_FEATURES[name] for name in names}}}
    schema = pa.schema([(name, TYPES[name]) for name in names], {"huggingface": json.dumps(features)})
    return pa.table([pa.array(columns[name], TYPES[name]) for name in names], schema=schema)


def write_demo(folder: str | Path) -> None:
    """Write `label/` and `train/` below `folder`, in place of the shards that are there."""
    images, targets = digits()
    order = np.random.default_rng(SEED).permutation(len(images))
    halves = {"label": order[: len(order) // 2 + 1], "train": order[len(order) // 2 + 1 :]}
    for half, indices in halves.items():
        table, count = half_table(half, images, targets, indices), SHARDS[half]
        (Path(folder) / half).mkdir(parents=True, exist_ok=True)
        edges = [len(table) * i // count for i in range(count + 1)]
        for number, (first, stop) in enumerate(zip(edges, edges[1:], strict=False)):
            path = Path(folder) / half / f"digits-{number:05d}-of-{count:05d}.parquet"
            pq.write_table(table.slice(first, stop - first), path, row_group_size=GROUP_ROWS, compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's digits as Parquet shards.")
    parser.add_argument("folder", help="for example configs/demo")
    write_demo(parser.parse_args().folder)


if __name__ == "__main__":
    main()
