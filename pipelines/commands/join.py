"""`levit-batch join OUTPUT`: predictions beside the columns of their source."""

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("join", help="put predictions beside the source's own columns, in one Parquet file")
    parser.add_argument("output", metavar="OUTPUT", help="folder or URL that `levit-batch run` wrote")
    parser.add_argument("--out", metavar="FILE", help="file to write (OUTPUT's name and -joined.parquet, here)")
    parser.add_argument("--columns", metavar="NAMES", help="only these columns of the source, a comma between them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.evaluate import source_of
    from levit_batch.results.export.join import join
    from levit_batch.results.page.formats import count
    from levit_batch.table.read import job_of, open_output

    output = open_output(args.output)
    out = args.out or f"{output.place.path.rsplit('/', 1)[-1]}-joined.parquet"
    columns = [name.strip() for name in args.columns.split(",")] if args.columns else None
    rows, left_out = join(output, source_of(job_of(output)), out, columns)
    gone = f"; {count(left_out)} left out: their shard has changed or is gone" if left_out else ""
    print(f"{count(rows)} rows written to {out}{gone}")
    return 0
