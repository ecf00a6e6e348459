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
    from levit_batch.levit import catalogue as models
    from pipelines.screen.console import InertConsole

    console = InertConsole()
    if args.fetch:
        folder, said = models.fetch(args.fetch, args.checkpoint, args.revision)
        said = {"folder": str(folder)} | said
    elif args.checkpoint:
        said = models.describe(args.checkpoint, args.revision)
    else:
        found = models.variants()
        _print_json(models.as_data(found)) if args.json else models.print_variants(found, console)
        return 0
    _print_json(said) if args.json else models.print_description(said, console)
    return 0


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
