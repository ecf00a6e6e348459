"""`levit-batch submit CONFIG --address http://HEAD:8265`: send a job to a running Ray cluster, and wait for it."""

import argparse
import sys

from pipelines.commands.arguments import add_address_argument, add_job_arguments, job_and_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    add_address_argument(parser)
    parser.add_argument("--name", help="the job's name; refused while one of that name runs (default: the file's)")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="take this environment variable along"
    )
    waits = parser.add_mutually_exclusive_group()
    waits.add_argument(
        "--wait", action="store_true", default=True, help="end when the job does, with its exit code (default)"
    )
    waits.add_argument("--no-wait", action="store_false", dest="wait", help="end at once")
    parser.add_argument("--follow", action="store_true", help="show what the job prints")
    has = parser.add_mutually_exclusive_group()
    has.add_argument(
        "--pip",
        nargs="*",
        metavar="REQUIREMENT",
        help="install the package's dependencies there, and these requirements",
    )
    has.add_argument(
        "--image-has-it", action="store_true", help="the nodes have levit-batch installed: ship only the job"
    )
    parser.add_argument("--nightly", action="store_true", help="run the nightly recipe: drift and notification, too")
    parser.add_argument("--fail-on-drift", action="store_true", help="with --nightly: exit code 4 on drift")


def run(args: argparse.Namespace) -> int:
    from pipelines.submit.jobs import Jobs
    from pipelines.submit.run import submit

    jobs = Jobs(args.address)
    if warning := jobs.check_version():
        print(f"levit-batch: {warning}", file=sys.stderr)
    job_id = submit(
        jobs,
        args.config,
        *job_and_values(args),
        name=args.name,
        command=command(args),
        env=args.env,
        pip=args.pip,
        installed=args.image_has_it,
    )
    try:
        print(f"submitted {job_id} to {jobs.address}", file=sys.stderr, flush=True)
        return _watch(jobs, job_id, args.follow) if args.wait or args.follow else 0
    except KeyboardInterrupt:
        print(f"\n{job_id} goes on; levit-batch stop {job_id} --address {jobs.address} ends it", file=sys.stderr)
        return 130


def command(args: argparse.Namespace) -> tuple[str, ...]:
    """What runs on the cluster."""
    if not args.nightly:
        return ("run",)
    return ("nightly", "--fail-on-drift") if args.fail_on_drift else ("nightly",)


def _watch(jobs, job_id: str, follow: bool) -> int:
    from pipelines.submit.report import as_json, exit_code
    from pipelines.submit.run import wait

    ended = wait(jobs, job_id, (lambda text: print(text, end="", flush=True)) if follow else None)
    job = as_json(ended)
    print(f"{job_id} {job['status']}, exit code {job['exit_code']}: {job['message']}", file=sys.stderr)
    return exit_code(ended)
