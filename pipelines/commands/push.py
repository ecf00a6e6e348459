"""`levit-batch push OUTPUT REPO`: an output to the Hugging Face Hub."""

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("push", help="upload an output to the Hugging Face Hub as a dataset")
    parser.add_argument("output", metavar="OUTPUT", help="folder that `levit-batch run` wrote")
    parser.add_argument("repo", metavar="REPO", help="dataset repository, USER/NAME; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.push import push
    from levit_batch.table.read import open_output

    print(push(open_output(args.output), args.repo, args.private))
    return 0
