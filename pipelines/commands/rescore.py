"""`levit-batch rescore OUTPUT`: label a finished table anew with other heads, from its embeddings; no image is read."""

import argparse
import json

from pipelines.commands.arguments import add_json_argument, add_lock_argument, add_output_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument("--checkpoint", required=True, metavar="HEAD", help="its heads; its backbone must be the output's own")
    parser.add_argument("--out", required=True, metavar="NEW", help="folder or URL of the new table")
    override = "override one key of predict, output, drift, model.heads or model.revision, for example predict.top_k=10"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=override)
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="divide the logits by this: above 1 scores are less sure (1)"
    )
    parser.add_argument("--overwrite", action="store_true", help="start afresh: delete what this tool wrote to NEW")
    add_lock_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from pipelines.rescore.prepare import prepare
    from pipelines.rescore.run import rescore
    from pipelines.screen.progress import Display
    from pipelines.screen.summary import summary

    task = prepare(args.output, args.checkpoint, args.out, args.set, args.temperature)
    display = Display.on_stderr()
    result = rescore(task, overwrite=args.overwrite, display=display, wait_for_lock=args.wait_for_lock)
    if args.json:
        print(json.dumps({"exit_code": result.exit_code, "run": result.record, "metrics": result.metrics}))
    else:
        print(summary(task.config, result))
    return result.exit_code
