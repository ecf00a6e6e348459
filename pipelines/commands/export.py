"""`levit-batch export OUTPUT --to FORMAT`: write an output in another tool's form."""

import argparse

from levit_batch.errors import ConfigError
from pipelines.commands.arguments import add_output_argument

FORMATS = ("csv", "jsonl", "numpy", "cleanlab", "fiftyone", "label-studio")
HELP = "the form; in CSV an apostrophe precedes texts that a spreadsheet would take for formulas, jsonl has them as they are"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--to", required=True, choices=FORMATS, help=HELP)
    parser.add_argument("--rows", metavar="FILE", help="label-studio: only the rows that `select --out FILE` chose")
    parser.add_argument("--out", metavar="DIR", help="new folder to write to (OUTPUT's name and the form, here)")


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.page.formats import count, plural
    from levit_batch.table.read import open_output

    output = open_output(args.output)
    out = args.out or f"{output.place.path.rsplit('/', 1)[-1]}-{args.to}"
    rows, left_out = export(output, args.to, out, args.rows)
    print(f"{plural(rows, 'row')} written to {out}" + (f"; {count(left_out)} left out" if left_out else ""))
    return 0


def export(output, kind: str, out: str, chosen: str | None = None) -> tuple[int, int]:
    """Rows written and rows left out. chosen: the file that names the rows."""
    if chosen and kind != "label-studio":
        raise ConfigError("--rows: goes with --to label-studio")
    from levit_batch.results.export import arrays
    from levit_batch.results.export import text as texts

    if kind in ("fiftyone", "label-studio"):
        from levit_batch.results.evaluate import source_of
        from levit_batch.results.export.images import export_fiftyone
        from levit_batch.results.export.label_studio import export_label_studio, read_chosen
        from levit_batch.table.read import job_of

        job = job_of(output)
        if kind == "fiftyone":
            return export_fiftyone(output, out, source_of(job), job["class_names"])
        return export_label_studio(output, out, source_of(job), job, read_chosen(chosen) if chosen else None)
    write = {
        "csv": texts.export_csv, "jsonl": texts.export_jsonl, "numpy": arrays.export_numpy,
        "cleanlab": arrays.export_cleanlab,
    }[kind]  # fmt: skip
    written = write(output, out)
    from levit_batch.table.scan import scan

    return written, sum(table.num_rows for table in scan(output, ["error"])) - written
