"""`levit-batch models [CHECKPOINT]`, `levit-batch models --fetch ID [DIR]`:
list the published models, describe a checkpoint, or fetch one.
"""

import argparse
import json

from pipelines.commands.arguments import add_json_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", help="hub id, folder or file to describe; with --fetch the folder")
    parser.add_argument("--fetch", metavar="ID", help="store this hub repository in the folder (default: its name)")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    add_json_argument(parser, "JSON")


def run(args: argparse.Namespace) -> int:
    from levit_batch.levit import catalogue
    from pipelines.screen.models import print_description, print_variants

    if args.fetch:
        folder, description = catalogue.fetch(args.fetch, args.checkpoint, args.revision)
        answer = {"folder": str(folder)} | description
    elif args.checkpoint:
        answer = catalogue.describe(args.checkpoint, args.revision)
    else:
        answer = list(catalogue.PUBLISHED)
    if args.json:
        print(json.dumps(catalogue.as_data() if isinstance(answer, list) else answer, indent=2))
    else:
        (print_variants if isinstance(answer, list) else print_description)(answer)
    return 0
