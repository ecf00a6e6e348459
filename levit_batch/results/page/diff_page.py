"""The page about two labelings."""

from typing import Any

from levit_batch.results.evaluate import with_pictures
from levit_batch.results.page.report import environment


def render(one: str, other: str, job: dict[str, Any], other_job: dict[str, Any], found: dict[str, Any]) -> str:
    """HTML text of `compare.diff`'s result, with thumbnails where the source of `job` is still there."""
    differing = [
        {"key": key, "a": job["values"].get(key), "b": other_job["values"].get(key)}
        for key in sorted({*job["values"], *other_job["values"]})
        if job["values"].get(key) != other_job["values"].get(key)
    ]
    worst = sorted(({"name": n, **c} for n, c in found["classes"].items()), key=lambda c: (c["agreement"], -c["rows"]))
    return environment().get_template("diff.html").render(
        one=one, other=other, found=found, differing=differing, worst=[c for c in worst if c["agreement"] < 1][:20],
        look=with_pictures(job, found["look"]),
    )  # fmt: skip
