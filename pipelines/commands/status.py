"""`levit-batch status [JOB]`: the jobs on a cluster."""

import argparse
import json

from pipelines.commands.arguments import add_address_argument


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("status", help="show the jobs on a cluster, or one of them")
    parser.add_argument("job", metavar="JOB", nargs="?", help="a job's name or id")
    add_address_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON value on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pipelines.submit.run import Jobs, as_json, table

    jobs = Jobs(args.address)
    found = [as_json(job) for job in ([jobs.find(args.job)] if args.job else jobs.list())]
    if args.json:
        print(json.dumps(found[0] if args.job else found))
        return 0
    print("\n".join(table(found)))
    if args.job and found[0]["message"]:
        print(found[0]["message"])
    return 0
