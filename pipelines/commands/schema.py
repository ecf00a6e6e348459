"""`levit-batch schema`: print the JSON Schema of the configuration."""

import argparse
import json

from levit_batch.job.config import JobConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    print(json.dumps(JobConfig.model_json_schema(), indent=2))
    return 0
