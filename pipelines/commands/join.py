"""`levit-batch join OUTPUT`: put predictions beside the source's own columns, in one Parquet file."""

import argparse

from pipelines.commands.arguments import add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--out", metavar="FILE", help="new file to write, FILE.parquet (OUTPUT's name and -joined.parquet, here)")
    parser.add_argument("--columns", metavar="NAMES", help="only these columns of the source, a comma between them")


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.evaluate import source_of
    from levit_batch.results.export.join import join
    from levit_batch.results.new_file import new_file
    from levit_batch.results.page.formats import count, plural
    from levit_batch.table.read import job_of, open_output

    output = open_output(args.output)
    out = args.out or f"{output.place.path.rsplit('/', 1)[-1]}-joined.parquet"
    new_file("--out", out, (".parquet",), output)
    columns = [name.strip() for name in args.columns.split(",")] if args.columns else None
    rows, left_out = join(output, source_of(job_of(output)), out, columns)
    gone = f"; {count(left_out)} left out: their shard has changed or is gone" if left_out else ""
    print(f"{plural(rows, 'row')} written to {out}{gone}")
    return 0
