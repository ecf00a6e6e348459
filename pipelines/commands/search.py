"""`levit-batch search OUTPUT IMAGE|NAME|SHARD:ROW`: the rows nearest to an image or to a row, by their embeddings."""

import argparse
import json
import os
from typing import Any

from pipelines.commands.arguments import add_json_argument, add_output_argument, add_rows_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_argument(parser)
    parser.add_argument(
        "query", metavar="IMAGE|NAME|SHARD:ROW", help="an image's path or URL, or a row, by its file's name or its place"
    )  # fmt: skip
    add_rows_argument(parser, 20, "so many")
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails to this file")
    parser.add_argument("--checkpoint", metavar="PATH", help="the weights, if not where job.json says (for an IMAGE)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.results.near.search import search
    from levit_batch.results.new_file import new_page
    from levit_batch.table.read import job_of, open_output
    from pipelines.screen.scan import bars

    output = open_output(args.output)
    job = job_of(output)
    file = new_page(args.html, output) if args.html else None
    query, vector, itself = _query(args, output, job)
    with bars() as step:
        nearest, compared = search(output, vector, args.n, itself, step)
    if file:
        from levit_batch.results.page.rows_page import render_rows

        lined = [pick | {"line": f"similarity {pick['similarity']:.4f}"} for pick in nearest]
        page = render_rows("Nearest rows", args.output, job, [("Asked for", [query]), ("Nearest", lined)])
        file.write_with(lambda sink: sink.write(page.encode()))
    if args.json:
        asked, rows = {name: query[name] for name in ("shard", "row")}, [_plain(pick) for pick in nearest]
        print(json.dumps({"query": asked, "compared": compared, "nearest": rows}))
    else:
        _print(nearest, compared)
        if args.html:
            print(f"page: {args.html}")
    return 0


def _query(args: argparse.Namespace, output: Any, job: dict[str, Any]) -> tuple[dict[str, Any], Any, tuple[str, int] | None]:
    """What is searched for as a pick, its embedding [D], and its (shard, row) if it is one: a file of that name is an image."""
    if not os.path.exists(args.query) and (where := _row(args.query, output)):
        from levit_batch.results.near.search import find_row

        return *find_row(output, *where), where
    return *_image(args, job), None


def _row(query: str, output: Any) -> tuple[str, int] | None:
    """The row that a query names, by the name of its file or as SHARD:ROW."""
    from levit_batch.results.near.search import find_named

    shard, colon, row = query.rpartition(":")
    place = (shard, int(row)) if colon and row.isdecimal() else None
    return place or (None if "://" in query else find_named(output, query))


def _image(args: argparse.Namespace, job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """An image as a pick, and its embedding [D]."""
    from levit_batch.errors import SourceError, brief
    from levit_batch.inference.query import embed_image
    from levit_batch.pixels.decode import decode
    from levit_batch.results.page.samples import thumbnail
    from levit_batch.storage.place import place
    from levit_batch.storage.url import shown

    try:
        data = place(args.query).read_bytes()
    except OSError as e:
        raise SourceError(
            f"{shown(args.query)}: neither an image that can be read ({brief(e)}), nor a file's name in the table, nor SHARD:ROW"
        ) from None
    vector = embed_image(job, shown(args.query), data, args.checkpoint)
    pixels = decode(data, max_pixels=job["config"]["source"]["max_image_pixels"])
    pick = {"shard": os.path.basename(shown(args.query)), "row": None, "error": None, "image": thumbnail(pixels)}
    return pick, vector


def _plain(pick: dict[str, Any]) -> dict[str, Any]:
    from levit_batch.results.export.text import plain
    from levit_batch.results.naming import with_kept

    names = ("shard", "row", "similarity", "label", "label_name", "score", "target_name")
    return plain(with_kept({name: pick[name] for name in names}, pick["kept"]))


def _print(nearest: list[dict[str, Any]], compared: int) -> None:
    from levit_batch.results.page.formats import plural
    from pipelines.screen.rows import print_picks

    texts = [(f"{p['similarity']:.4f}", p["label_name"], f"{p['score']:.3f}", p["target_name"] or "") for p in nearest]
    print_picks(None, ("similarity", "label", "score", "target"), texts, nearest)
    print(f"{plural(compared, 'row')} compared")
