"""Photograph-like JPEGs for the benchmarks: random crops and colour changes of scikit-learn's two sample photographs.

    python -m tests.benchmarks.images FOLDER [--images 2000]

About 500x375 pixels and 110 KB each, as ImageNet's are; Parquet with row groups of 100, in several shards.
"""

import argparse
import io
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

GROUP, QUALITY = 100, 95


def encoded(index: int) -> bytes:
    """JPEG number `index`, the same every time."""
    rng = np.random.default_rng(index)
    whole = Image.fromarray(load_sample_images().images[index % 2])
    scale = float(rng.uniform(0.6, 1.0))
    width, height = int(whole.width * scale), int(whole.height * scale)
    left, top = int(rng.integers(0, whole.width - width + 1)), int(rng.integers(0, whole.height - height + 1))
    image = whole.crop((left, top, left + width, top + height))
    size = (int(rng.integers(450, 550)), int(rng.integers(340, 410)))
    image = image.resize(size if rng.random() < 0.8 else size[::-1], Image.Resampling.BICUBIC)
    for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = change(image).enhance(float(rng.uniform(0.7, 1.3)))
    grain = rng.normal(0, 6, (*image.size[::-1], 1))  # photographs have it, and it is what makes 110 KB
    pixels = (np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def write_shards(folder: Path, images: int, shards: int) -> None:
    """`images` JPEGs in `shards` Parquet files in the form of a Hugging Face dataset; what is there stays."""
    if len(list(folder.glob("*.parquet"))) == shards:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        data = list(pool.map(encoded, range(images), chunksize=50))
    for i in range(shards):
        part = data[i * images // shards : (i + 1) * images // shards]
        cells = [{"bytes": item, "path": f"{i}-{j}.jpg"} for j, item in enumerate(part)]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(cells, kind)})
        pq.write_table(table, folder / f"{i:05d}.parquet", row_group_size=GROUP, compression="none")


def read_images(folder: Path) -> list[bytes]:
    """Every encoded image of the shards, in order."""
    tables = [pq.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    return [cell["bytes"] for table in tables for cell in table["image"].to_pylist()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=5)
    args = parser.parse_args()
    write_shards(args.folder, args.images, args.shards)
    sizes = [len(item) for item in read_images(args.folder)]
    print(f"{len(sizes)} images, {np.mean(sizes) / 1000:.0f} KB each")
