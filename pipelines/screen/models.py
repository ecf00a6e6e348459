"""The published models and one checkpoint, for a reader at a terminal."""

from typing import Any

from levit_batch.levit.catalogue import Variant
from pipelines.screen.console import InertConsole, console, table


def print_variants(variants: list[Variant]) -> None:
    head = ("checkpoint", "parameters", "FLOPs", "embedding", "top-1 (published)")
    rows = [
        (v.hub_id, f"{v.parameters / 1e6:.1f} M", f"{v.macs / 1e6:.0f} M", str(v.embedding), f"{v.published_top1} %")
        for v in variants
    ]
    out = console()
    out.print(table("Published LeViT models", head, rows, right=range(1, 5)))
    out.print("FLOPs: multiply-adds an image at 224 x 224. Any fine-tuned LeViT folder is a checkpoint as well.")


def print_description(description: dict[str, Any]) -> None:
    out = InertConsole(markup=False, highlight=False, soft_wrap=True)
    for name, value in _lines(description):
        out.print(f"{name.replace('_', ' '):24}{value}")


def _lines(description: dict[str, Any]) -> list[tuple[str, str]]:
    shown = {name: value for name, value in description.items() if name != "preprocessing" and value is not None}
    shown["parameters"], shown["macs"] = f"{description['parameters']:,}", f"{description['macs']:,} multiply-adds an image"
    shown["first_classes"] = ", ".join(description["first_classes"])
    steps = {f"  {name}": value for name, value in description["preprocessing"].items()}
    return [(name, str(value)) for name, value in (shown | {"preprocessing": ""} | steps).items()]
