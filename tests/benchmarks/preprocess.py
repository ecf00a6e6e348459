"""Images a second of one core, from encoded bytes to uint8 pixels: decoders, resizers and whole ways, side by side.

    python -m tests.benchmarks.preprocess [--size 500x375] [--images 64] [--rounds 9] [--json]

All contestants take turns in every round, on the same photographs; figures are medians of processor time, which other
programs on the machine disturb less than wall time (wall time for IsolatedPreprocessor, which has two processes). What
is not installed is left out: opencv-python-headless, imagecodecs and PyTurboJPEG (2.x needs libjpeg-turbo 3 on
the system, 1.x any) are no dependencies of this project.
"""

import argparse
import importlib.metadata
import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from levit_batch.pixels.isolate import IsolatedPreprocessor
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.pixels.resize import resize, resize_pillow, resize_window
from tests.support.images import encode, photographs

Ways = dict[str, Callable]
PROCESSOR = Preprocessing.read().to_dict()
BICUBIC = Image.Resampling.BICUBIC


def decoders() -> Ways:
    """Name -> bytes to RGB pixels."""
    import simplejpeg

    ways: Ways = {
        "pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        "simplejpeg, exact": lambda data: simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False),
        "simplejpeg, fast": lambda data: simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True),
    }
    for load in (_opencv, _imagecodecs, _turbojpeg):
        try:
            ways |= load()
        except (ImportError, RuntimeError, AttributeError) as error:
            print(f"left out: {load.__name__.strip('_')} ({error})".splitlines()[0])
    return ways


def _opencv() -> Ways:
    import cv2

    cv2.setNumThreads(1)
    return {"opencv": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)}


def _imagecodecs() -> Ways:
    import imagecodecs

    return {"imagecodecs": lambda data: imagecodecs.jpeg8_decode(data, outcolorspace="RGB")}


def _turbojpeg() -> Ways:
    import turbojpeg

    decoder = turbojpeg.TurboJPEG()
    return {"PyTurboJPEG": lambda data: decoder.decode(data, pixel_format=turbojpeg.TJPF_RGB)}


def resizers() -> Ways:
    """Name -> pixels to the 256 pixel edge, or straight to the centre crop of it."""

    return {
        "pillow": lambda pixels: resize_pillow(pixels, target(pixels), BICUBIC),
        "torch": lambda pixels: resize(pixels, target(pixels), BICUBIC),
        "torch, crop only": lambda pixels: resize_window(pixels, target(pixels), *window(pixels), BICUBIC),
    }


def target(pixels: np.ndarray) -> tuple[int, int]:
    """(height, width) after the resize."""
    height, width, _ = pixels.shape
    return (256, 256 * width // height) if height <= width else (256 * height // width, 256)


def window(pixels: np.ndarray) -> list[slice]:
    """Rows and columns of the centre crop in the resized image."""
    return [slice((edge - 224) // 2, (edge + 224) // 2) for edge in target(pixels)]


def whole_ways() -> Ways:
    """Name -> many encoded images to pixels. The bound is the two libraries' calls and nothing else."""
    import simplejpeg
    from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

    theirs = LevitImageProcessorPil()
    out = np.empty((1, 224, 224, 3), np.uint8)

    def bound(images: list[bytes]) -> None:
        for data in images:
            pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
            out[0] = resize(pixels, target(pixels), BICUBIC)[*window(pixels)]

    return {
        "transformers, pillow": lambda images: [theirs(Image.open(io.BytesIO(data)).convert("RGB")) for data in images],
        "simplejpeg + torch, bare": bound,
        "Preprocessor, exact": Preprocessor(PROCESSOR, "exact"),
        "Preprocessor, fast": Preprocessor(PROCESSOR, "fast"),
        "IsolatedPreprocessor": IsolatedPreprocessor(PROCESSOR),
    }


def race(ways: Ways, items: list, rounds: int, each: bool) -> dict[str, float]:
    """Name -> items a second; `each`: the way takes one item and not the list."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first is a warm-up
        for name, way in ways.items():
            start = time.process_time(), time.perf_counter()
            [way(item) for item in items] if each else way(items)
            spent = time.process_time() - start[0]
            seconds[name].append(time.perf_counter() - start[1] if "Isolated" in name else spent)
    return {name: round(len(items) / statistics.median(values[1:]), 1) for name, values in seconds.items()}


BROKEN = {
    "cut in half": lambda jpeg: jpeg[: len(jpeg) // 2],
    "half and an end marker": lambda jpeg: jpeg[: len(jpeg) // 2] + b"\xff\xd9",
    "no end marker": lambda jpeg: jpeg[:-2],
    "stray bytes": lambda jpeg: jpeg[:-2] + b"\1\2\3" + jpeg[-2:],
    "CMYK": lambda jpeg: encode(Image.open(io.BytesIO(jpeg)).convert("CMYK")),
}


def behaviour(decode: Callable, images: list[bytes]) -> dict[str, str]:
    """What a decoder makes of sound files (against Pillow) and of broken ones."""
    pillow = with_pillow(images)
    same = sum(np.array_equal(decode(data), expected) for data, expected in zip(images, pillow, strict=True))
    found = {"equal to Pillow": f"{same} of {len(images)}"}
    for name, harm in BROKEN.items():
        data = harm(images[0])
        try:
            pixels = decode(data)
            agrees = pixels is not None and np.array_equal(pixels, _pillow_or_none(data))
            found[name] = "None" if pixels is None else "Pillow's pixels" if agrees else "other pixels"
        except Exception as error:
            found[name] = f"raises {type(error).__name__}"
    return found


def with_pillow(images: list[bytes]) -> list[np.ndarray]:
    return [np.array(Image.open(io.BytesIO(data)).convert("RGB")) for data in images]


def _pillow_or_none(data: bytes) -> np.ndarray | None:
    try:
        return with_pillow([data])[0]
    except OSError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="500x375")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = photographs(options.images, *map(int, options.size.split("x")))
    figures = measure(images, options.rounds)
    print(json.dumps(figures, indent=1)) if options.json else show(figures)


def measure(images: list[bytes], rounds: int) -> dict:
    pixels = with_pillow(images)
    readers = decoders()
    return {
        "mean kilobytes": round(sum(map(len, images)) / len(images) / 1000),
        "decode": race(readers, images, rounds, each=True),
        "resize": race(resizers(), pixels, rounds, each=True),
        "whole": race(whole_ways(), images, rounds, each=False),
        "behaviour": {name: behaviour(decode, images) for name, decode in readers.items()},
        "versions": {name: importlib.metadata.version(name) for name in ("pillow", "simplejpeg", "torch")},
    }


def show(figures: dict) -> None:
    console = Console(width=160)
    console.print(f"JPEGs of {figures['mean kilobytes']} KB, {figures['versions']}")
    for stage in ("decode", "resize", "whole"):
        table = Table(stage, "images/s", title=None)
        for name, rate in figures[stage].items():
            table.add_row(name, f"{rate:.0f}")
        console.print(table)
    columns = list(next(iter(figures["behaviour"].values())))
    table = Table("decoder", *columns)
    for name, found in figures["behaviour"].items():
        table.add_row(name, *found.values())
    console.print(table)


if __name__ == "__main__":
    main()
