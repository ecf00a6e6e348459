"""`levit-batch status [JOB]`: show the jobs on a cluster, or one of them."""

import argparse
import json

from pipelines.commands.arguments import add_address_argument, add_json_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", nargs="?", help="a job's name or id")
    add_address_argument(parser)
    add_json_argument(parser, "one JSON value")


def run(args: argparse.Namespace) -> int:
    from pipelines.submit.jobs import Jobs
    from pipelines.submit.report import as_json, table

    jobs = Jobs(args.address)
    rows = [as_json(job) for job in ([jobs.find(args.job)] if args.job else jobs.list())]
    if args.json:
        print(json.dumps(rows[0] if args.job else rows))
        return 0
    print("\n".join(table(rows)))
    if args.job and rows[0]["message"]:
        print(rows[0]["message"])
    return 0
