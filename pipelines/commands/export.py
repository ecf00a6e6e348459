"""`levit-batch export OUTPUT --to FORMAT`: write an output in another tool's form."""

import argparse

from pipelines.commands.arguments import add_output_argument

FORMATS = ("csv", "jsonl", "numpy", "cleanlab", "fiftyone")
HELP = "the form; in CSV an apostrophe precedes texts that a spreadsheet would take for formulas, jsonl has them as they are"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--to", required=True, choices=FORMATS, help=HELP)
    parser.add_argument("--out", metavar="DIR", help="new folder to write to (OUTPUT's name and the form, here)")


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.page.formats import count
    from levit_batch.table.read import open_output

    output = open_output(args.output)
    out = args.out or f"{output.place.path.rsplit('/', 1)[-1]}-{args.to}"
    rows, left_out = export(output, args.to, out)
    print(f"{count(rows)} rows written to {out}" + (f"; {count(left_out)} left out" if left_out else ""))
    return 0


def export(output, kind: str, out: str) -> tuple[int, int]:
    """Rows written and rows left out."""
    from levit_batch.results.export import arrays
    from levit_batch.results.export import text as texts

    if kind == "fiftyone":
        from levit_batch.results.evaluate import source_of
        from levit_batch.results.export.images import export_fiftyone
        from levit_batch.table.read import job_of

        job = job_of(output)
        return export_fiftyone(output, out, source_of(job), job["class_names"])
    write = {
        "csv": texts.export_csv, "jsonl": texts.export_jsonl, "numpy": arrays.export_numpy,
        "cleanlab": arrays.export_cleanlab,
    }[kind]  # fmt: skip
    written = write(output, out)
    from levit_batch.table.read import scan

    return written, sum(table.num_rows for table in scan(output, ["error"])) - written
