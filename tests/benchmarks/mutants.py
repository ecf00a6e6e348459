"""Damaged images of every format that Pillow opens, each between two good ones: is it an image or an error, and are they whole?

python -m tests.benchmarks.mutants --count 100000
python -m tests.benchmarks.mutants --first 4711 --count 1     # one again

A child process decodes them, thousand by thousand, with as much memory as a replica's isolating child has. One that ends it is
counted, and told; in a job it costs its own row (`pixels/isolate.py`).
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections import Counter
from typing import Any

import numpy as np

from tests.support.mutants import mutant, whole

MOST_PIXELS, TIMEOUT, MEMORY = 20_000_000, 20.0, 4 << 30
AT_A_TIME = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    counts, since = Counter(), time.monotonic()
    at, end = arguments.first, arguments.first + arguments.count
    while at < end:
        at = thousand(at, min(end, at + AT_A_TIME), counts)
        print(f"{at - arguments.first:,}: {dict(counts)}", flush=True)
    seconds = time.monotonic() - since
    print(f"{arguments.count:,} mutants of {len(whole())} formats in {seconds:.0f} s: {dict(counts)}")
    return 1 if counts["wrong"] else 0


def thousand(first: int, stop: int, counts: Counter[str]) -> int:
    """Decodes mutants in a child process until the first that ends it; returns how far it came."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=decode_all, args=(first, stop, theirs))
    child.start()
    theirs.close()
    at = first
    try:
        while at < stop:
            number, kind = ours.recv()
            counts[kind.partition(":")[0]] += 1
            if kind.startswith("wrong"):
                print(f"--first {number} --count 1: {mutant(number)[0]}: {kind}")
            at += 1
    except EOFError:
        child.join()
        print(f"--first {at} --count 1: {mutant(at)[0]}: ended its process ({child.exitcode})")
        counts["ended its process"] += 1
        at += 1
    child.join()
    return at


def decode_all(first: int, stop: int, to: Any) -> None:
    """Sends the kind of each: image, the kind of its error, or what is wrong."""
    from levit_batch.errors import ROW_ERROR_KINDS
    from levit_batch.pixels.preprocess import Preprocessor

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    preprocess = Preprocessor({"size": {"shortest_edge": 36}, "crop_size": 32}, max_pixels=MOST_PIXELS, timeout=TIMEOUT)
    good = [whole()["JPEG"][0], whole()["PNG"][0]]
    expected, _ = preprocess(good)
    for number in range(first, stop):
        _, data = mutant(number)
        try:
            pixels, errors = preprocess([good[0], data, good[1]])
        except Exception as e:
            to.send((number, f"wrong: {type(e).__name__}: {e}"))
            continue
        kind = errors[1].partition(":")[0] if errors[1] else "image"
        if not (np.array_equal(pixels[[0, 2]], expected) and errors[0] is errors[2] is None):
            kind = "wrong: a neighbour is another"
        elif kind != "image" and (kind not in ROW_ERROR_KINDS or "\n" in errors[1] or pixels[1].any()):
            kind = f"wrong: {errors[1]}"
        to.send((number, kind))


if __name__ == "__main__":
    sys.exit(main())
