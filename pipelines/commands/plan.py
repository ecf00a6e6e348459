"""`levit-batch plan CONFIG`: what a run would do; changes nothing."""

import argparse
import json

from pipelines.commands.arguments import add_job_arguments, job_config


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("plan", help="show shards, rows, chunks, done and pending; changes nothing")
    add_job_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = job_config(args)
    from pipelines.label.describe import describe, plan_text

    plan = describe(config)
    print(json.dumps(plan) if args.json else plan_text(plan))
    return 0
