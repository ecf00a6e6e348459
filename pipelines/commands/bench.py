"""`levit-batch bench CONFIG`: each stage measured with the job's own images; time, replicas and cost of what is pending."""

import argparse
import json
import sys

from pipelines.commands.arguments import add_job_arguments, add_json_argument, job_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--images", type=int, default=256, metavar="N", help="how many images to measure with (256)")
    parser.add_argument("--replicas", type=int, metavar="N", help="estimate for N replicas (default: this machine's)")
    parser.add_argument("--hours", type=float, metavar="H", help="say how many replicas finish in H hours")
    parser.add_argument("--price", type=float, metavar="P", help="price of a machine like this one, an hour")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = job_config(args)
    from pipelines.bench.run import bench, print_bench

    measured = bench(config, args.images, args.replicas, args.hours, args.price, lambda text: print(text, file=sys.stderr))
    if args.json:
        print(json.dumps(measured))
    else:
        print_bench(measured)
    return 0
