"""`levit-batch push OUTPUT REPO`: upload an output to the Hugging Face Hub as a dataset."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="folder that `levit-batch run` wrote")
    parser.add_argument("repo", metavar="REPO", help="dataset repository, USER/NAME; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.push import push
    from levit_batch.table.read import open_output

    print(push(open_output(args.output), args.repo, args.private))
    return 0
