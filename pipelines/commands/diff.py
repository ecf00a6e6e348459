"""`levit-batch diff OUTPUT_A OUTPUT_B`: compare two labelings of the same rows."""

import argparse
import json

from pipelines.commands.arguments import add_json_argument

SHOWN = 12
LOOK = "Rows to look at: both sure, and not of one mind"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", metavar="OUTPUT_A", help="an output, for example of the model in use")
    parser.add_argument("other", metavar="OUTPUT_B", help="another over the same source: other weights, dtype or size")
    parser.add_argument("--html", metavar="FILE", help="write a page with thumbnails to this file")
    parser.add_argument("-n", type=int, default=24, metavar="ROWS", help="rows to look at (24)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.diff import diff
    from levit_batch.results.new_file import new_page
    from levit_batch.table.read import job_of, open_output

    one, other = open_output(args.one), open_output(args.other)
    file = new_page(args.html, one, other) if args.html else None
    difference = diff(one, other, args.n)
    if file:
        from levit_batch.results.page.diff_page import render

        page = render(args.one, args.other, job_of(one), job_of(other), difference)
        file.write_with(lambda sink: sink.write(page.encode()))
    if args.json:
        print(json.dumps(difference))
    else:
        print_diff(difference)
        if args.html:
            print(f"page: {args.html}")
    return 0


def print_diff(difference: dict) -> None:
    """Print the figures and the rows to look at."""
    from levit_batch.results.page.formats import count, percent, plural
    from pipelines.screen.console import console, table

    out = console()
    out.print(table(None, ("", "A", "B"), _figures(difference), right=(1, 2)))
    worst = sorted(difference["classes"].items(), key=lambda one: one[1]["agreement"])
    worst = [(n, count(c["rows"]), percent(c["agreement"])) for n, c in worst if c["agreement"] < 1][:SHOWN]
    flips = [(f["from"], f["to"], count(f["rows"])) for f in difference["flips"][:SHOWN]]
    file = ["file"] if any(r["name"] for r in difference["look"]) else []
    rows = [
        (*[r["name"] or ""][: len(file)], r["shard"], str(r["row"]), _sure(r["label_name"], r["score"]),
         _sure(r["other_name"], r["other_score"]), r["target_name"] or "")
        for r in difference["look"]
    ]  # fmt: skip
    for title, head, lines, right in (
        ("Classes that agree least", ("label in A", "rows", "agreement"), worst, (1, 2)),
        ("Labels that changed", ("A", "B", "rows"), flips, (2,)),
        (LOOK, (*file, "shard", "row", "A", "B", "target"), rows, (len(file) + 1,)),
    ):
        if lines:
            out.print()
            out.print(table(title, head, lines, right))
    if difference["changed_shards"]:
        print(f"left out: {plural(len(difference['changed_shards']), 'shard')} whose content changed in between")


def _sure(name: str, score: float) -> str:
    return f"{name} {score:.3f}"


def _figures(difference: dict) -> list[tuple[str, str, str]]:
    from levit_batch.results.page.formats import count, figure, percent, plural

    rows = [
        ("rows compared", count(difference["compared"]), ""),
        ("rows that only one has", *map(count, difference["only_in"])),
        ("error rows", *map(count, difference["errors"])),
        ("agreement", percent(difference["agreement"]), ""),
    ]
    if difference["mean_score"]:
        rows.append(("mean score", *map(figure, difference["mean_score"])))
    target = difference["target"]
    if target:
        rows.append((f"top-1 of {plural(target['rows'], 'row')}", *map(percent, target["top1"])))
        rows.append(("right in this one only", count(target["broken"]), count(target["mended"])))
    return rows
