"""`levit-batch run CONFIG`: label what is pending."""

import argparse
import json
import sys

from pipelines.commands.arguments import add_job_arguments, add_lock_argument, job_config


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("run", help="label a dataset; run it again to go on, or to label what is new")
    add_job_arguments(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh: delete what this tool wrote to the output"
    )
    parser.add_argument("--retry-errors", action="store_true", help="label again the chunks that hold error rows")
    parser.add_argument(
        "--drop-vanished", action="store_true", help="delete the rows of what the source no longer has, in place of keeping them"
    )
    add_lock_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--verbose", action="store_true", help="show what Ray says, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = job_config(args)
    from pipelines.label.run import run_job
    from pipelines.screen.progress import Display
    from pipelines.screen.summary import summary

    display = Display.on_stderr()
    result = run_job(
        config,
        overwrite=args.overwrite,
        retry_errors=args.retry_errors,
        drop_vanished=args.drop_vanished,
        verbose=args.verbose,
        display=display,
        wait_for_lock=args.wait_for_lock,
    )
    if args.json:
        print(json.dumps({"exit_code": result.exit_code, "run": result.record, "metrics": result.metrics}))
    else:
        print(summary(config, result), file=sys.stdout)
    return result.exit_code
