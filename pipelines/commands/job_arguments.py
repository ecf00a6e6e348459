"""The arguments that every command about a job takes."""

import argparse
import math

from levit_batch.config import JobConfig
from levit_batch.load_config import load_config


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the job")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key, for example model.heads=class",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of the plan (source.limit)")


def add_lock_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait-for-lock",
        type=float,
        nargs="?",
        const=math.inf,
        default=0.0,
        metavar="SECONDS",
        help="wait, for ever or so long, while another run holds the output, instead of ending with exit code 2",
    )


def job_config(args: argparse.Namespace) -> JobConfig:
    overrides = [*args.set, *([f"source.limit={args.limit}"] if args.limit is not None else [])]
    return load_config(args.config, overrides)
