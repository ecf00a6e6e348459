"""`levit-batch logs JOB`: show what a job on a cluster has printed."""

import argparse

from pipelines.commands.arguments import add_address_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="a job's name or id")
    add_address_argument(parser)
    parser.add_argument("--follow", action="store_true", help="go on until the job ends")


def run(args: argparse.Namespace) -> int:
    from pipelines.submit.jobs import Jobs
    from pipelines.submit.run import follow

    jobs = Jobs(args.address)
    job = jobs.find(args.job)
    if args.follow:
        follow(jobs, job.submission_id, lambda text: print(text, end="", flush=True))
    else:
        print(jobs.client.get_job_logs(job.submission_id), end="")
    return 0
