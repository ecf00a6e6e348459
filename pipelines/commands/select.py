"""`levit-batch select OUTPUT`: what to label next: the rows that the model is least sure of, spread over what they look like."""

import argparse
import json
from typing import Any

from pipelines.commands.arguments import add_json_argument, add_output_argument, add_rows_argument

SHOWN = 20
COLUMNS = ("shard", "row", "label", "label_name", "score", "target_name", "uncertainty")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    add_rows_argument(parser, 1000, "so many")
    parser.add_argument("--by", default="margin", metavar="REASONS", help="margin, divergence, outlier, a comma between (margin)")
    parser.add_argument("--diverse", action="store_true", help="of ten times as many, those that are unlike each other")
    parser.add_argument("--labelled", action="store_true", help="also rows that have a target")
    parser.add_argument("--out", metavar="FILE", help="write them as a new table: FILE.csv or FILE.parquet")
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails of the first hundred to this file")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.naming import with_kept
    from levit_batch.results.near.choose import choose
    from levit_batch.results.new_file import new_file, new_page
    from levit_batch.table.read import open_output
    from pipelines.screen.scan import bars

    output, by = open_output(args.output), list(dict.fromkeys(reason.strip() for reason in args.by.split(",")))
    out = new_file("--out", args.out, (".csv", ".parquet"), output) if args.out else None
    page = new_page(args.html, output) if args.html else None
    with bars() as step:
        picks, of = choose(output, args.n, by, args.diverse, args.labelled, step)
    rows = [with_kept({name: pick[name] for name in (*COLUMNS, *by)}, pick["kept"]) for pick in picks]
    if out:
        _write(out, rows)
    if page:
        _write_page(page, args.output, output, by, picks)
    if args.json:
        from levit_batch.results.export.text import plain

        print(json.dumps(plain({"of": of, "by": by, "rows": rows})))
    else:
        _print(picks, by, of)
        for what, path in (("table", args.out), ("page", args.html)):
            if path:
                print(f"{what}: {path}")
    return 0


def _write(file: Any, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from levit_batch.results.export.text import flat, for_spreadsheets

    table = pa.Table.from_pylist(rows)
    if file.path.lower().endswith(".csv"):
        table = for_spreadsheets(pa.table({name: flat(table[name]) for name in table.schema.names}))
        file.write_with(lambda sink: pyarrow.csv.write_csv(table, sink))
    else:
        file.write_with(lambda sink: pq.write_table(table, sink))


def _write_page(file: Any, path: str, output: Any, by: list[str], picks: list[dict[str, Any]]) -> None:
    from levit_batch.results.page.rows_page import render_rows
    from levit_batch.table.read import job_of

    lined = [pick | {"line": ", ".join(f"{reason} {pick[reason]:.2g}" for reason in by)} for pick in picks[:100]]
    page = render_rows("What to label next", path, job_of(output), [(f"The first {len(lined)} of {len(picks)}", lined)])
    file.write_with(lambda sink: sink.write(page.encode()))


def _print(picks: list[dict[str, Any]], by: list[str], of: int) -> None:
    from levit_batch.results.page.formats import count, plural
    from pipelines.screen.rows import print_picks

    texts = [
        (f"{p['uncertainty']:.3f}", *(f"{p[reason]:.3g}" for reason in by), p["label_name"], f"{p['score']:.3f}")
        for p in picks[:SHOWN]
    ]
    print_picks(None, ("uncertainty", *by, "label", "score"), texts, picks[:SHOWN])
    more = "" if len(picks) <= SHOWN else f", the first {SHOWN} shown: --out has all"
    print(f"{plural(len(picks), 'row')} of {count(of)}{more}")
