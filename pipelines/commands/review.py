"""`levit-batch review OUTPUT`: copies, outliers and suspected labels, from embeddings and scores, as a table beside it."""

import argparse
import json
from typing import Any

from pipelines.commands.arguments import add_json_argument, add_output_argument

SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument(
        "--near", type=float, metavar="MEDIANS",
        help="rows are copies when they are nearer than so many medians of the distance to the nearest row (0.13)",
    )  # fmt: skip
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails to this file")
    parser.add_argument("--address", metavar="ADDRESS", help="on the Ray cluster that this machine is in: auto, or HOST:PORT")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.near.looked_up import examples, plain
    from levit_batch.results.near.review import NEAR, review
    from levit_batch.results.new_file import new_page
    from levit_batch.table.output import REVIEW
    from levit_batch.table.read import open_output
    from pipelines.screen.scan import bars

    output = open_output(args.output)
    page = new_page(args.html, output) if args.html else None
    near = NEAR if args.near is None else args.near
    with bars() as step:
        summary = review(output, near, step) if args.address is None else _on_cluster(args.address, output, near, step)
    shown = examples(output)
    if page:
        _write_page(page, args.output, output, summary, shown)
    if args.json:
        print(json.dumps({**summary, "table": output.place.join(REVIEW).url, "examples": plain(shown)}))
    else:
        _print(summary, shown)
        print(f"table: {output.place.join(REVIEW).url}" + (f"   page: {args.html}" if args.html else ""))
    return 0


def _on_cluster(*arguments: Any) -> dict[str, Any]:
    from pipelines.review.run import review_on

    return review_on(*arguments)


def _write_page(file: Any, path: str, output: Any, summary: dict[str, Any], shown: dict[str, Any]) -> None:
    from levit_batch.results.near.looked_up import points
    from levit_batch.results.page.formats import plural
    from levit_batch.results.page.plots import label_map
    from levit_batch.results.page.rows_page import render_rows
    from levit_batch.table.read import job_of

    job, some = job_of(output), points(output)
    plot = f"Map of {plural(len(some), 'row')} by label", label_map(some["x"], some["y"], some["label"], job["class_names"])
    groups = [(f"Copies {number}", picks) for number, picks in enumerate(shown["copies"], 1)]
    groups += [(title, [pick for picks in shown[kind] for pick in picks]) for kind, title in TITLES.items()]
    page = render_rows("Review", path, job, groups, tuple(_lines(summary)), plot)
    file.write_with(lambda sink: sink.write(page.encode()))


TITLES = {"outliers": "Outliers, the farthest first", "labels": "Suspected labels, the likeliest wrong first"}


def _lines(of: dict[str, Any]) -> list[str]:
    from levit_batch.results.page.formats import count, figure, plural

    by = {"target": "targets, by confident learning", "heads": "predictions on which the heads disagree"}.get(of["labels_by"])
    copies = f"{plural(of['copies'], 'copy', 'copies')} in {plural(of['copy_groups'], 'group')}"
    return [
        f"{copies}: nearer than {figure(of['copy_distance'])}"
        + (", or of nearly the same hash, mirrored or not" if of["by_hashes"] else ""),
        f"{plural(of['outliers'], 'outlier')}: the mean of the ten nearest is farther than {figure(of['outlier_distance'])}",
        f"{plural(of['suspected_labels'], 'suspected label')}: {by}" if by else
        "no labels are suspected: that takes a target (source.target_column) or predict.per_head",
        f"of {plural(of['rows'], 'row')}, each held against those that share one of its two best labels; "
        f"{count(of['alone'])} had none to be held against",
    ]  # fmt: skip


def _print(summary: dict[str, Any], shown: dict[str, Any]) -> None:
    from pipelines.screen.rows import print_picks

    for line in _lines(summary):
        print(line)
    for kind, title in (("copies", "Copies, the closest first"), *TITLES.items()):
        picks = [pick for each in shown[kind] for pick in each][:SHOWN]
        if picks:
            print()
            texts = [(p["line"], p["label_name"], p["target_name"] or "") for p in picks]
            print_picks(title, ("why", "label", "target"), texts, picks)
