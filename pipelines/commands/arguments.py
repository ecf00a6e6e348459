"""The arguments that several commands take."""

import argparse
import math
import os
from typing import Any

from levit_batch.job.config import JobConfig
from levit_batch.job.load import apply_override, load_config, read_yaml


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="folder or URL that `levit-batch run` wrote")


def add_json_argument(parser: argparse.ArgumentParser, what: str = "one JSON object") -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} on standard output")


def add_rows_argument(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    parser.add_argument("-n", type=_positive, default=default, metavar="ROWS", help=f"{what} ({default})")


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def add_verbose_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verbose", action="store_true", help="show what Ray says, too")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, "job", "model.heads=class")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of the plan (source.limit)")


def add_config_arguments(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    override = f"override one key, for example {example}"
    parser.add_argument("config", metavar="CONFIG", help=f"YAML file of the {what}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=override)


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


def add_address_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS", "http://127.0.0.1:8265"),
        metavar="URL",
        help="the cluster's dashboard, http://HEAD:8265 (default: RAY_ADDRESS, or this machine)",
    )


def job_config(args: argparse.Namespace) -> JobConfig:
    return load_config(args.config, overrides(args))


def overrides(args: argparse.Namespace) -> list[str]:
    return [*args.set, *([f"source.limit={args.limit}"] if args.limit is not None else [])]


def job_and_values(args: argparse.Namespace) -> tuple[JobConfig, dict[str, Any]]:
    """The job, and the same as YAML has it: with `${NAME}` unexpanded, for what runs elsewhere."""
    values = read_yaml(args.config)
    for override in overrides(args):
        apply_override(values, override, JobConfig)
    return job_config(args), values
