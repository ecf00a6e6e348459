"""Random nights: sources that change, runs that are killed, limited, doubled, into every kind of output; is the table right?

python -m tests.benchmarks.nights --seconds 3600                       # all sources, all stores
python -m tests.benchmarks.nights --seed 17 --source parquet --store disk    # one sequence again
"""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.nights_engine import Engine

NIGHTS = 8  # at most, in one sequence, and two plain ones
RARE = 13  # of so many sequences one is on S3, which is slow


def main() -> int:
    arguments = parse()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with ready("nights-") as (engine, folder):
        return play_all(arguments, engine, folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0, help="how long; 0: one sequence")
    parser.add_argument("--sequences", type=int, default=1 << 60, help="how many at most")
    parser.add_argument("--seed", type=int, default=None, help="of the first sequence; the others count on")
    parser.add_argument("--nights", type=int, default=None, help="of each sequence; else 1 to 8, by the seed")
    parser.add_argument("--source", default="all")
    parser.add_argument("--store", default="all")
    parser.add_argument("--keep-going", action="store_true", help="also after a wrong table")
    return parser.parse_args()


@contextlib.contextmanager
def ready(prefix: str) -> Iterator[tuple["Engine", Path]]:
    """The product, ready to be played with, and a folder, which has a tiny checkpoint and goes at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(folder / "hub")}  # before the Hub's client is imported
        from tests.support.models import TINY, signal_model
        from tests.support.nights_engine import Engine
        from tests.support.nights_images import Model

        signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder / "checkpoint")
        with Engine(Model(folder / "checkpoint")) as engine:
            yield engine, folder


def play_all(arguments: argparse.Namespace, engine: "Engine", folder: Path) -> int:
    from tests.support.nights_sequence import SOURCES

    sources = list(SOURCES) if arguments.source == "all" else arguments.source.split(",")
    stores = ["disk", "memory", "plain"] if arguments.store == "all" else arguments.store.split(",")
    first = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    end, figures, wrong = time.monotonic() + arguments.seconds, defaultdict(Counter), 0
    pairs = list(itertools.product(stores, sources))
    with contextlib.ExitStack() as stack:
        s3 = arguments.store == "all" or "s3" in stores
        if s3:
            stack.enter_context(s3_here())
        for i in range(arguments.sequences):
            store, source = pairs[i % len(pairs)]
            if arguments.store == "all" and i % RARE == RARE - 1:
                store = "s3"
            wrong += not play(engine, folder, first + i, source, store, arguments.nights, figures)
            if (wrong and not arguments.keep_going) or time.monotonic() >= end:
                break
    print(table(figures))
    return 1 if wrong else 0


@contextlib.contextmanager
def s3_here() -> Iterator[None]:
    import pytest

    from tests.support.s3_server import S3Server

    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        server.use(patch)
        yield


def play(
    engine: "Engine", folder: Path, seed: int, source: str, store: str, nights: int | None, figures: dict[str, Counter]
) -> bool:
    """One sequence; whether every table in it was right. Its seed is printed first."""
    from tests.support.nights_sequence import Sequence

    print(f"--seed {seed} --source {source} --store {store}", end=" ", flush=True)
    since, home = time.monotonic(), folder / "world"
    home.mkdir()
    sequence = Sequence(engine, home, seed, source, store)
    counts = figures[f"{source}, {store}"]
    try:
        sequence.play(nights or 1 + seed % NIGHTS)
        print(f"right, {sequence.counts['nights']} nights, {time.monotonic() - since:.1f} s", flush=True)
        return True
    except Exception as e:
        counts["wrong"] += 1
        print(
            "WRONG",
            *sequence.said,
            traceback.format_exc() if not isinstance(e, AssertionError) else "",
            f"=> {e}",
            sep="\n",
        )
        sys.stdout.flush()
        return False
    finally:
        counts["sequences"] += 1
        counts.update(sequence.counts)
        shutil.rmtree(home)


def table(figures: dict[str, Counter]) -> str:
    """What happened, by source and store, and in sum."""
    lines = [f"{'':<22}{'sequences':>10}{'nights':>8}{'killed':>8}{'refused':>8}{'side by side':>14}{'wrong':>7}"]
    for name, counts in [*sorted(figures.items()), ("all", sum(figures.values(), Counter()))]:
        told = ("sequences", 10), ("nights", 8), ("killed", 8), ("exit 2", 8), ("side by side", 14), ("wrong", 7)
        lines.append(f"{name:<22}" + "".join(f"{counts[of]:>{width}}" for of, width in told))
    all_of = sum(figures.values(), Counter())
    faults = {
        name: n for name, n in sorted(all_of.items()) if " " in name and name.split()[0] in ("kill", "error", "call")
    }
    return "\n".join([*lines, ", ".join(f"{name} {n}" for name, n in faults.items())])


if __name__ == "__main__":
    sys.exit(main())
