"""`levit-batch finetune CONFIG`: train a LeViT on labelled images."""

import argparse
import json
import sys
from typing import Any

from levit_batch.job.load import load_config


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("finetune", help="train a LeViT on labelled images; run it again to go on")
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the training")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key, for example train.epochs=5"
    )
    parser.add_argument("--overwrite", action="store_true", help="start afresh: delete the training in the output")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--verbose", action="store_true", help="show what Ray says, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from levit_batch.training.config import FinetuneConfig

    config = load_config(args.config, args.set, FinetuneConfig)
    from pipelines.finetune.run import finetune
    from pipelines.screen.training import shown

    with shown() as report:
        record = finetune(config, overwrite=args.overwrite, verbose=args.verbose, report=report)
    print(json.dumps(record) if args.json else summary(record), file=sys.stdout)
    return 0


def summary(record: dict[str, Any]) -> str:
    """What came out, in two lines, and the command to label with it."""
    history, best = record["history"], record["best"]
    text = f"{len(history)} epochs, loss {history[-1]['loss']:.4f}, accuracy {history[-1]['accuracy']:.4f}"
    if "validation_accuracy" in best:
        text += f"; best validation accuracy {best['validation_accuracy']:.4f} in epoch {best['epoch']}"
    if record["stopped_early"]:
        text += "; stopped early"
    return f"{text}\ncheckpoint {record['checkpoint']}: label with --set model.checkpoint={record['checkpoint']}"
