"""`levit-batch evaluate OUTPUT`: compute metrics.json and report.html of an output again."""

import argparse
import json

from pipelines.commands.arguments import add_json_argument, add_output_argument

WORST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--target-table", metavar="FILE", help="take the truth from this Parquet table or Label Studio export")
    parser.add_argument("--on", default="shard,row", metavar="COLUMNS", help="its key, also in the output (shard,row)")
    parser.add_argument(
        "--target-column", default="target", metavar="NAME", help="its truth: a class, or a list of them"
    )
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        help="read sample images again from wherever job.json says the source is, or from nowhere (default: from local disks)",
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.evaluate import evaluate, pictures_from
    from levit_batch.results.truth import TruthTable
    from levit_batch.table.read import job_of, open_output

    output = open_output(args.output)
    job = job_of(output)
    names = job["class_names"]
    keys = [name.strip() for name in args.on.split(",")]
    options = "--on and --target-column"
    truth = TruthTable(args.target_table, keys, args.target_column, names, options) if args.target_table else None
    metrics = evaluate(output, pictures_from(job, args.pictures), truth)
    if args.json:
        print(json.dumps(metrics))
    else:
        print_metrics(metrics, names, args.output)
    return 0


def print_metrics(metrics: dict, names: list[str], path: str) -> None:
    """Print the figures that matter most."""
    from levit_batch.results.page.formats import count, figure, percent
    from levit_batch.results.wording import against, unmatched
    from pipelines.screen.console import console, table

    target = metrics["target"]
    errors = ", ".join(f"{count(n)} {kind}" for kind, n in metrics["errors"].items())
    rows = [
        ("rows", count(metrics["rows"])),
        ("error rows", percent(metrics["error_rate"]) + (f" ({errors})" if errors else "")),
    ]
    if target:
        rows += [("judged" + (against(metrics) or " against a target"), count(target["rows"]))]
        rows += [("top-1", percent(target["top1"]))]
        rows += [("top-5", percent(target["top5"]))] if target["top5"] is not None else []
        rows += [("mean accuracy of the classes", percent(target["balanced"]))]
        rows += [("calibration error", percent(target["calibration"]["error"]))]
    rows += [("mean score", figure(metrics["scores"]["mean"]))]
    if metrics["heads"]:
        rows += [("heads disagree", percent(metrics["heads"]["disagree"]))]
    out = console()
    out.print(table(None, ("", ""), rows))
    if missed := unmatched(metrics):
        out.print(missed, soft_wrap=True)
    if target and target["confusions"]:
        pairs = [(names[p["target"]], names[p["label"]], count(p["rows"])) for p in target["confusions"][:WORST]]
        out.print()
        out.print(table("Most confused", ("target", "labelled as", "rows"), pairs, right=(2,)))
    if not target:
        out.print("no target: set source.target_column, or give --target-table, to see accuracy")
    out.print(f"page: {path.rstrip('/')}/report.html")
