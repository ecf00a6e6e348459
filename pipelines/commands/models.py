"""`levit-batch models [CHECKPOINT]`, `levit-batch models --fetch ID [DIR]`."""

import argparse
import json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("models", help="list the published models, describe a checkpoint, or fetch one")
    parser.add_argument("checkpoint", nargs="?", help="hub id, folder or file to describe; with --fetch the folder")
    parser.add_argument("--fetch", metavar="ID", help="store this hub repository in the folder (default: its name)")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from levit_batch.levit import catalogue as models
    from pipelines.screen.console import InertConsole

    console = InertConsole()
    if args.fetch:
        folder, description = models.fetch(args.fetch, args.checkpoint, args.revision)
        description = {"folder": str(folder)} | description
    elif args.checkpoint:
        description = models.describe(args.checkpoint, args.revision)
    else:
        _print_json(models.as_data()) if args.json else models.print_variants(console)
        return 0
    _print_json(description) if args.json else models.print_description(description, console)
    return 0


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
