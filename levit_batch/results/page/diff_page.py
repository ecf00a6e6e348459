"""The page about two labelings."""

from typing import Any

from levit_batch.results.evaluate import pictures_from
from levit_batch.results.page.samples import thumbnails
from levit_batch.results.page.templates import environment


def render(one: str, other: str, job: dict[str, Any], other_job: dict[str, Any], answer: dict[str, Any]) -> str:
    """HTML text of `diff`'s answer, with thumbnails where the source of `job` is still there."""
    differing = [
        {"key": key, "a": job["values"].get(key), "b": other_job["values"].get(key)}
        for key in sorted({*job["values"], *other_job["values"]})
        if job["values"].get(key) != other_job["values"].get(key)
    ]
    worst = sorted(({"name": n, **c} for n, c in answer["classes"].items()), key=lambda c: (c["agreement"], -c["rows"]))
    return environment().get_template("diff.html").render(
        one=one, other=other, diff=answer, differing=differing, worst=[c for c in worst if c["agreement"] < 1][:20],
        look=thumbnails(pictures_from(job), answer["look"]),
    )  # fmt: skip
