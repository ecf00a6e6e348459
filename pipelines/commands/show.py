"""`levit-batch show OUTPUT`: rows in the terminal."""

import argparse
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("show", help="look at rows of an output")
    parser.add_argument("output", metavar="OUTPUT", help="folder or URL that `levit-batch run` wrote")
    parser.add_argument("--errors", action="store_true", help="only rows with an error")
    parser.add_argument("--label", metavar="NAME", help="only rows with this label")
    parser.add_argument(
        "--where", metavar="CONDITION", help="only rows that meet it: 'score < 0.5 and \"cat\" in label_name'"
    )
    parser.add_argument("--columns", metavar="NAMES", help="show these columns, a comma between them")
    parser.add_argument("-n", type=int, default=20, metavar="ROWS", help="at most so many rows (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.select import cells, select
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
    from pipelines.screen.console import console, table

    head, texts = cells(rows, job_of(output)["class_names"])
    out = console()
    if texts:
        out.print(table(None, head, texts, right=[head.index(name) for name in ("row", "score") if name in head]))
    print(f"{rows.num_rows} rows{'; there are more: -n' if more else ''}" if texts else "no such rows")
    return 0
