"""`levit-batch show OUTPUT`: look at rows of an output."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pipelines.commands.arguments import add_json_argument, add_output_argument, add_rows_argument

if TYPE_CHECKING:
    import pyarrow as pa


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--errors", action="store_true", help="only rows with an error")
    parser.add_argument("--label", metavar="NAME", help="only rows with this label")
    parser.add_argument(
        "--where", metavar="CONDITION", help="only rows that meet it: 'score < 0.5 and \"cat\" in label_name'"
    )
    parser.add_argument("--columns", metavar="NAMES", help="show these columns, a comma between them")
    add_rows_argument(parser, 20, "at most so many rows")
    add_json_argument(parser, "one JSON object a row")


def _spare(rows: "pa.Table", job: dict[str, Any]) -> list[int]:
    """The columns of `rows` that were kept from the source, but for the one that names a row's file."""
    from levit_batch.results.naming import naming_of

    naming = naming_of(job, rows.schema, kept=True)
    return [rows.schema.names.index(name) for name in naming.kept if name != naming.column]


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.select import select
    from levit_batch.table.read import job_of, open_output

    output = open_output(args.output)
    columns = [name.strip() for name in args.columns.split(",")] if args.columns else None
    rows, more = select(output, columns=columns, where=args.where, label=args.label, errors=args.errors, n=args.n)
    job = job_of(output)
    if args.json:
        from levit_batch.results.export.text import json_line
        from pipelines.screen.rows import with_target_names

        shown = rows if columns else with_target_names(rows, job["class_names"])
        sys.stdout.writelines(json_line(row) for row in shown.to_pylist())
        return 0
    from levit_batch.results.page.formats import plural
    from pipelines.screen.rows import cells, print_fitting

    rows = rows if columns else rows.drop_columns("label")  # which label_name says in words
    head, texts = cells(rows, job["class_names"])
    if texts:
        print_fitting(None, head, texts, () if columns else _spare(rows, job))
    print(f"{plural(rows.num_rows, 'row')}{'; there are more: -n' if more else ''}" if texts else "no such rows")
    return 0
