"""The fault matrix: every storage operation of a command fails, is cut off, is slow, or the process dies before, amid, after it.

python -m tests.benchmarks.faults                              # all commands, all stores
python -m tests.benchmarks.faults --command night --store s3
python -m tests.benchmarks.faults --command compact --store disk --at 17 --what kill-after     # one case again

After each, the same command once more must end well, and leave the rows, by manifest and by folder, the sums and the files that
it leaves undisturbed, and nothing else.
"""

import argparse
import contextlib
import sys
import time
from collections import Counter
from pathlib import Path

from tests.benchmarks.nights import ready

STALE = 10**13  # ns: longer than any case


def main() -> int:
    arguments = parse()
    if arguments.stale:
        import levit_batch.table.live as live

        live.TICK = STALE
    with ready("faults-") as (engine, folder):
        return play_all(arguments, engine, folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", default="all")
    parser.add_argument("--store", default="all", help="disk, plain (one that cannot exchange folders), memory, s3")
    parser.add_argument("--at", type=int, default=0, help="only this operation")
    parser.add_argument("--what", default="", help="only this fault")
    parser.add_argument("--every", type=int, default=1, help="only one case of so many")
    parser.add_argument("--stale", action="store_true", help="on disks, no folder's time tells that it did not change")
    return parser.parse_args()


def play_all(arguments: argparse.Namespace, engine: object, folder: Path) -> int:
    from tests.support.fault_cases import staged
    from tests.support.fault_commands import COMMANDS
    from tests.support.s3_server import S3Server

    figures: dict[str, Counter[str]] = {}
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(S3Server())
        for name, command in COMMANDS.items():
            for store in command.stores:
                if {"all", name} & {*arguments.command.split(",")} and {"all", store} & {*arguments.store.split(",")}:
                    since = time.monotonic()
                    with staged(engine, folder, name, store, s3) as stage:
                        counts = figures[f"{name}, {store}"] = play(stage, arguments)
                    counts["seconds"] = round(time.monotonic() - since)
                    print(f"{name}, {store}:", dict(counts), flush=True)
    total = sum(figures.values(), Counter())
    print("all:", dict(total))
    return 1 if total["wrong"] or not total["cases"] else 0


def play(stage: object, arguments: argparse.Namespace) -> Counter[str]:
    from tests.support.fault_cases import wrong

    counts: Counter[str] = Counter(operations=len(stage.trace))
    for number, case in enumerate(stage.cases()):
        if arguments.at not in (0, case.at) or arguments.what not in ("", case.what.replace(" ", "-")):
            continue
        if number % arguments.every:
            continue
        happened, why = wrong(stage, case)
        counts += happened
        if why:
            print(f"{case}\n    WRONG: {why}", flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
