"""`levit-batch stop JOB`: stop a job on a cluster; what it wrote stays."""

import argparse

from pipelines.commands.arguments import add_address_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="a job's name or id")
    add_address_argument(parser)


def run(args: argparse.Namespace) -> int:
    from pipelines.submit.jobs import Jobs
    from pipelines.submit.report import RUNNING, as_json
    from pipelines.submit.run import stop

    job = stop(Jobs(args.address), args.job)
    print(f"{job.submission_id} {as_json(job)['status']}; submit the same job again to go on")
    return 1 if job.status in RUNNING else 0
