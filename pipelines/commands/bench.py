"""`levit-batch bench CONFIG`: where the time goes on this machine, and what the whole plan takes."""

import argparse
import json
import sys

from pipelines.commands.arguments import add_job_arguments, job_config


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "bench", help="measure each stage with the job's own images; estimate time, replicas and cost of the plan"
    )
    add_job_arguments(parser)
    parser.add_argument("--images", type=int, default=256, metavar="N", help="how many images to measure with (256)")
    parser.add_argument("--replicas", type=int, metavar="N", help="estimate for N replicas (default: this machine's)")
    parser.add_argument("--hours", type=float, metavar="H", help="say how many replicas finish in H hours")
    parser.add_argument("--price", type=float, metavar="P", help="price of a machine like this one, an hour")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = job_config(args)
    from pipelines.bench.run import bench, show

    said = bench(config, args.images, args.replicas, args.hours, args.price, lambda text: print(text, file=sys.stderr))
    if args.json:
        print(json.dumps(said))
    else:
        show(said)
    return 0
