"""`levit-batch show OUTPUT`: look at rows of an output."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pipelines.commands.arguments import add_json_argument, add_output_argument

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
    parser.add_argument("-n", type=int, default=20, metavar="ROWS", help="at most so many rows (20)")
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
    rows, more = select(
        output, columns=columns, where=args.where, label=args.label, errors=args.errors, n=max(args.n, 1)
    )
    if args.json:
        from levit_batch.results.export.text import json_line

        sys.stdout.writelines(json_line(row) for row in rows.to_pylist())
        return 0
    from pipelines.screen.rows import cells, print_fitting

    job = job_of(output)
    head, texts = cells(rows, job["class_names"])
    if texts:
        print_fitting(None, head, texts, () if columns else _spare(rows, job))
    print(f"{rows.num_rows} rows{'; there are more: -n' if more else ''}" if texts else "no such rows")
    return 0
