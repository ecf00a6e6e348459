"""A page of rows to look at, group after group: what a search found, what a review suspects, what to label next."""

from typing import Any

from levit_batch.results.best import Pick
from levit_batch.results.evaluate import pictures_from
from levit_batch.results.page.samples import thumbnails
from levit_batch.results.page.templates import environment


def render_rows(
    title: str,
    path: str,
    job: dict[str, Any],
    groups: list[tuple[str, list[Pick]]],
    notes: tuple[str, ...] = (),
    plot: tuple[str, str] | None = None,
) -> str:
    """HTML text, with thumbnails where the source of `job` is still there.

    groups: each with its heading; a pick may have a `line` of its own. A pick with an `image` already keeps it.
    plot: a heading, and SVG text that comes before them.
    """
    bare = [pick for _, picks in groups for pick in picks if "image" not in pick]
    drawn = iter(thumbnails(pictures_from(job), bare))
    shown = [(heading, [pick if "image" in pick else next(drawn) for pick in picks]) for heading, picks in groups]
    return environment().get_template("rows.html").render(title=title, path=path, groups=shown, notes=notes, plot=plot)
