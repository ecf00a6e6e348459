"""`levit-batch run CONFIG`: label a dataset; run it again to go on, or to label what is new."""

import argparse
import json
import sys

from pipelines.commands.arguments import (
    add_job_arguments,
    add_json_argument,
    add_lock_argument,
    add_verbose_argument,
    job_config,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh: delete what this tool wrote to the output"
    )
    parser.add_argument("--retry-errors", action="store_true", help="label again the chunks that hold error rows")
    parser.add_argument(
        "--drop-vanished", action="store_true", help="delete the rows of what the source no longer has, in place of keeping them"
    )
    add_lock_argument(parser)
    add_json_argument(parser)
    add_verbose_argument(parser)


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
