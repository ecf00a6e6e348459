"""`levit-batch schema`: the JSON Schema of a job's configuration, for editors."""

import argparse
import json

from levit_batch.job.config import JobConfig


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("schema", help="print the JSON Schema of the configuration")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(json.dumps(JobConfig.model_json_schema(), indent=2))
    return 0
