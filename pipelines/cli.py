"""`levit-batch`: parse, call a recipe, print one line on an error of ours; a bug keeps its traceback.

Every command is a module with `add_parser(subparsers)` and `run(args) -> exit code`; heavy imports wait until it runs.
"""

import argparse
import importlib
import shlex
import signal
import sys

from levit_batch.errors import LevitBatchError
from levit_batch.redact import redact
from pipelines.inert import inert_output

COMMANDS = (
    "run",
    "plan",
    "bench",
    "finetune",
    "models",
    "schema",
    "evaluate",
    "show",
    "export",
    "diff",
    "history",
    "join",
    "push",
    "submit",
    "status",
    "logs",
    "stop",
    "manifest",
    "schedule",
    "nightly",
)
INTERRUPTED = 130


@inert_output()
def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code (see `--help` for their meaning)."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return args.run(args)
    except LevitBatchError as e:
        print(f"levit-batch: {redact(str(e))}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        command = shlex.join(["levit-batch", *(sys.argv[1:] if argv is None else argv)])
        command = command.replace(" --overwrite", "")
        print(f"\nlevit-batch: interrupted; what is written stays. Go on with: {command}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="levit-batch",
        description="Put a LeViT label and an embedding on every image of a large dataset.",
        epilog="Exit codes: 0 done; 1 the job failed; 2 the configuration, source, checkpoint or output is wrong; "
        "3 done, but more rows failed than output.max_error_rate allows; 4 drift, with --fail-on-drift; 75 nightly: another run "
        "is at it; 130 interrupted.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"pipelines.commands.{name}").add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
