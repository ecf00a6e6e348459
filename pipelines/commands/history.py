"""`levit-batch history OUTPUT`: list the runs into an output."""

import argparse
import json

from pipelines.commands.arguments import add_json_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("-n", type=int, default=30, metavar="RUNS", help="at most so many, the latest (30)")
    add_json_argument(parser, "the records as one JSON list")


def run(args: argparse.Namespace) -> int:
    from levit_batch.table.history import history
    from levit_batch.table.read import open_output

    runs = history(open_output(args.output), max(args.n, 1))
    if args.json:
        print(json.dumps(runs))
        return 0
    from pipelines.screen.console import console, table

    if not runs:
        print("no runs yet")
        return 0
    head = ("started", "state", "new rows", "errors", "images/s", "took", "new", "changed", "gone", "drift")
    console().print(table(None, head, [cells(one) for one in runs], right=range(2, 9)))
    return 0


def cells(run: dict) -> list[str]:
    """One run as texts."""
    from levit_batch.results.page.formats import count, figure, percent, seconds, when

    rows = run.get("rows")
    shards = [count(run.get("shards", {}).get(kind, {}).get("count")) for kind in ("new", "changed", "vanished")]
    drift = run.get("drift") or {}
    breaches = f" ({', '.join(drift['breaches'])})" if drift.get("breaches") else ""
    return [
        when(run.get("started")), run.get("state", "–"), count(rows), percent(run.get("error_rate")) if rows else "–",
        figure(run.get("images_per_second")) if rows else "–", seconds(run.get("seconds")), *shards,
        drift.get("verdict", "–") + breaches,
    ]  # fmt: skip
