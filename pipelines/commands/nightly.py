"""`levit-batch nightly CONFIG`: label what is new, compare it with the nights before, notify."""

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
    add_lock_argument(parser)
    parser.add_argument(
        "--fail-on-drift", action="store_true", help="exit code 4 when tonight's rows differ from before"
    )
    add_json_argument(parser)
    add_verbose_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = job_config(args)
    from pipelines.nightly.run import LOCKED, run_nightly
    from pipelines.screen.progress import Display

    night = run_nightly(
        config,
        fail_on_drift=args.fail_on_drift,
        wait_for_lock=args.wait_for_lock,
        verbose=args.verbose,
        display=Display.on_stderr(),
    )
    if args.json:
        print(json.dumps({"exit_code": night.exit_code, "run": night.result and night.result.record}))
    else:
        prefix = "levit-batch: " if night.exit_code == LOCKED else ""
        print(prefix + night.text, file=sys.stderr if night.exit_code == LOCKED else sys.stdout)
    return night.exit_code
