"""`levit-batch`: parse, call a recipe, print one line on an error of ours; a bug keeps its traceback.

Every command is a module with `add_arguments(parser)` and `run(args) -> exit code`, whose docstring says after its usage what it
does; heavy imports wait until it runs.
"""

import argparse
import atexit
import contextlib
import importlib
import os
import shlex
import sys
from typing import NoReturn

from levit_batch.errors import LevitBatchError, brief
from levit_batch.storage.redact import redact
from pipelines.interrupt import interrupted, interruptible, uninterruptible
from pipelines.screen.inert import inert_output

COMMANDS = (
    "run",
    "plan",
    "bench",
    "finetune",
    "models",
    "schema",
    "evaluate",
    "rescore",
    "compact",
    "show",
    "search",
    "review",
    "select",
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
    interruptible()
    try:
        code = args.run(args)
    except BaseException as e:
        code = ended(e, sys.argv[1:] if argv is None else argv)
    if argv is None:
        leave(code)
    return code


def ended(error: BaseException, argv: list[str]) -> int:
    """Says in a line how the command ended, and gives its exit code; raises what is a bug."""
    if interrupted(error):
        command = shlex.join(["levit-batch", *argv]).replace(" --overwrite", "")
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(f"\nlevit-batch: interrupted; what is written stays. Go on with: {command}", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, LevitBatchError):
        print(f"levit-batch: {redact(str(error))}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()
        return 0
    if isinstance(error, OSError):  # a disk or a store, at some place where nobody knows more
        print(f"levit-batch: {redact(brief(error))}; what is written stays, and the same command goes on", file=sys.stderr)
        return LevitBatchError.exit_code
    raise error


def leave(code: int) -> NoReturn:
    """The process only ends. Interrupted, it does so at once: libraries broken off at their work may abort it instead.

    Else without taking apart what was imported, module by module: that is half a second of a core with torch and matplotlib.
    """
    uninterruptible()
    if code != INTERRUPTED:
        atexit._run_exitfuncs()  # temporary folders, child processes
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or it is closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


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
        module = importlib.import_module(f"pipelines.commands.{name}")
        does = module.__doc__.partition("`:")[2].strip().removesuffix(".")
        command = subparsers.add_parser(name, help=does, description=does)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
