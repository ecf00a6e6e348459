"""The learning curve of a training as a picture."""

import io
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def learning_curve(history: list[dict[str, Any]], best: dict[str, Any] | None) -> bytes:
    """Loss and accuracy by epoch, training and validation, with the epoch that was kept marked: an SVG file."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    epochs = [entry["epoch"] for entry in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [entry[name] for entry in history], label="training")
        if history and f"validation_{name}" in history[0]:
            axes.plot(epochs, [entry[f"validation_{name}"] for entry in history], label="validation")
            if best:
                axes.plot(best["epoch"], best[f"validation_{name}"], "o", color="black", label=f"epoch {best['epoch']}")
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
