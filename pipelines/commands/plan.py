"""`levit-batch plan CONFIG`: show shards, rows, chunks, done and pending; changes nothing."""

import argparse
import json

from pipelines.commands.arguments import add_job_arguments, add_json_argument, job_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = job_config(args)
    from pipelines.label.describe import describe, plan_text

    plan = describe(config)
    print(json.dumps(plan) if args.json else plan_text(plan))
    return 0
