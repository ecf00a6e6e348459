"""`levit-batch stop JOB`: end a job on a cluster; submitted again, it goes on."""

import argparse

from pipelines.commands.arguments import add_address_argument


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("stop", help="stop a job on a cluster; what it wrote stays")
    parser.add_argument("job", metavar="JOB", help="a job's name or id")
    add_address_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pipelines.submit.run import RUNNING, Jobs, as_json, stop

    job = stop(Jobs(args.address), args.job)
    print(f"{job.submission_id} {as_json(job)['status']}; submit the same job again to go on")
    return 1 if job.status in RUNNING else 0
