"""`levit-batch compact OUTPUT`: merge the small files of each shard into few large ones, which query engines like."""

import argparse
import json
import sys

from pipelines.commands.arguments import add_json_argument, add_lock_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of a merged file at most (1000000)")
    add_lock_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.table.compact import compact
    from levit_batch.table.lock import locked
    from levit_batch.table.read import open_output

    output = open_output(args.output)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def step(done: int, total: int) -> None:
        if done < total:
            say(f"merged {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    with locked(output.place, args.wait_for_lock, say) as claim:
        files = compact(output, claim.require, args.rows, step)
    print(json.dumps(files) if args.json else f"{files['before']:,} files before, {files['after']:,} now: {args.output}/data")
    return 0
