"""`levit-batch finetune CONFIG`: train a LeViT on labelled images; run it again to go on."""

import argparse
import json
import sys
from typing import Any

from levit_batch.job.load import load_config
from pipelines.commands.arguments import add_config_arguments, add_json_argument, add_verbose_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, "training", "train.epochs=5")
    parser.add_argument("--overwrite", action="store_true", help="start afresh: delete the training in the output")
    add_json_argument(parser)
    add_verbose_argument(parser)


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
    from levit_batch.results.page.formats import plural

    history, best = record["history"], record["best"]
    text = f"{plural(len(history), 'epoch')}, loss {history[-1]['loss']:.4f}, accuracy {history[-1]['accuracy']:.4f}"
    if "validation_accuracy" in best:
        text += f"; best validation accuracy {best['validation_accuracy']:.4f} in epoch {best['epoch']}"
    if record["stopped_early"]:
        text += "; stopped early"
    return f"{text}\ncheckpoint {record['checkpoint']}: label with --set model.checkpoint={record['checkpoint']}"
