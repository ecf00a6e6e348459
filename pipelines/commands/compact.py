"""`levit-batch compact OUTPUT`: few large files, which query engines like, in place of each shard's small ones, or as a copy."""

import argparse
import json
import sys

from pipelines.commands.arguments import add_json_argument, add_lock_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument(
        "--to", metavar="COPY", help="leave OUTPUT as it is: make, or bring up to date, a copy of it whose files hold many shards"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of a large file at most (1000000)")
    add_lock_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.job.config import OutputConfig
    from levit_batch.job.load import validate
    from levit_batch.results.page.formats import plural
    from levit_batch.table.compact import compact
    from levit_batch.table.copy import Copy
    from levit_batch.table.lock import locked
    from levit_batch.table.output import Output
    from levit_batch.table.read import open_output

    output = open_output(args.output)
    copy = Copy(output, Output(validate({"path": args.to}, "--to", OutputConfig))) if args.to is not None else None

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def step(done: int, total: int) -> None:
        if 1e6 <= done < total:
            say(f"{'copied' if copy else 'merged'} {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    folder, setting = (copy.place, "--to") if copy else (output.place, "output.path")
    with locked(folder, args.wait_for_lock, say, setting=setting) as claim:
        files = copy.update(claim.require, args.rows, step) if copy else compact(output, claim.require, args.rows, step)
    if args.json:
        print(json.dumps(files))
    elif copy:
        print(f"{plural(files['files'], 'file')}, {files['written']:,} of them written now: {args.to}/data")
    else:
        print(f"{plural(files['before'], 'file')} before, {files['after']:,} now: {args.output}/data")
    return 0
