"""Plots as SVG text that takes its colours and font from the page around it, so that it follows light and dark."""

import io
import re
import warnings
from collections.abc import Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

# Matplotlib knows no CSS: these exact colours are put in and exchanged for the page's own afterwards.
INK, FAINT, MAIN, SECOND, BAD = "#010101", "#020202", "#030303", "#040404", "#050505"
CSS = {
    INK: "currentColor", FAINT: "var(--line)", MAIN: "var(--main)", SECOND: "var(--second)", BAD: "var(--bad)",
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "levit-batch", "text.parse_math": False, "font.size": 11,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 2,
    "axes.formatter.limits": (-4, 6), "axes.titlesize": 11, "axes.titlelocation": "left",
}  # fmt: skip
SEVERAL = [to_hex(colour) for colour in matplotlib.color_sequences["tab10"]]
NAME = 34  # characters of a class name that a plot shows


def short(name: str, width: int = NAME) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def label_bars(names: Sequence[str], rows: Sequence[int]) -> str:
    """Horizontal bars, the first on top."""
    with _figure(7, 0.6 + 0.26 * len(names)) as (figure, done):
        axes = figure.add_subplot()
        axes.barh(range(len(rows)), rows, color=MAIN, height=0.72)
        axes.set_yticks(range(len(rows)), [short(name) for name in names])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(_count)
        axes.margins(x=0.12)
        for i, count in enumerate(rows):
            axes.annotate(f"{count:,}", (count, i), (4, 0), textcoords="offset points", va="center", fontsize=9.5)
    return done[0]


def score_histogram(counts: Sequence[int]) -> str:
    """Rows by score; `counts` are of bins of equal width in [0, 1]."""
    with _figure(7, 2.8) as (figure, done):
        axes = figure.add_subplot()
        width = 1 / len(counts)
        axes.bar([(i + 0.5) * width for i in range(len(counts))], counts, width * 0.9, color=MAIN)
        axes.set(xlim=(0, 1), xlabel="score of the label", ylabel="rows")
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_formatter(_count)
    return done[0]


def reliability(bins: Sequence[dict]) -> str:
    """Accuracy by score against the diagonal where both are equal; below it, how many rows each bin has."""
    with _figure(7, 4.2) as (figure, done):
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        full = [b for b in bins if b["rows"]]
        middle, width = [(b["from"] + b["to"]) / 2 for b in full], 0.9 / len(bins)
        upper.bar(middle, [b["accuracy"] for b in full], width, color=MAIN, label="accuracy")
        upper.plot([0, 1], [0, 1], color=SECOND, linestyle="--", linewidth=1.2, label="as sure as right")
        upper.scatter(
            [b["score"] for b in full], [b["accuracy"] for b in full], color=BAD, s=14, zorder=3, label="mean score"
        )
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        upper.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9.5)
        lower.bar(middle, [b["rows"] for b in full], width, color=SECOND)
        lower.set(xlabel="score of the label", ylabel="rows")
        lower.yaxis.set_major_formatter(_count)
    return done[0]


def trend(names: Sequence[str], series: dict[str, Sequence[float | None]], limits: dict[str, float]) -> str:
    """One small plot a series over the runs, a broken line where there is no value; `limits` are drawn as lines."""
    with _figure(13, 0.7 + 1.4 * len(series)) as (figure, done):
        plots = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, values) in zip(plots, series.items(), strict=True):
            axes.set_title(title)
            axes.plot(
                range(len(names)), [float("nan") if v is None else v for v in values], "o-", color=MAIN, markersize=4
            )
            if title in limits:
                axes.axhline(limits[title], color=BAD, linestyle="--", linewidth=1.2)
            highest = max([v for v in values if v is not None] + [limits.get(title, 0)], default=0)
            axes.set_ylim(0, highest * 1.2 or 1)
            axes.yaxis.set_major_formatter(_count)
        step = max(1, -(-len(names) // 8))
        plots[-1].set_xticks(range(0, len(names), step), list(names)[::step])
    return done[0]


def label_map(x: Sequence[float], y: Sequence[float], labels: Sequence[int], names: Sequence[str]) -> str:
    """Points, the most frequent labels in colours of their own."""
    labels = np.asarray(labels)
    with _figure(9, 6) as (figure, done):
        axes = figure.add_subplot()
        kinds, rows = np.unique(labels, return_counts=True)
        shown = kinds[np.argsort(-rows, kind="stable")][: len(SEVERAL)]
        rest = ~np.isin(labels, shown)
        drawn = [(rest, FAINT, "others")] * bool(rest.any())
        drawn += [(labels == kind, colour, short(names[kind])) for kind, colour in zip(shown, SEVERAL, strict=False)]
        for some, colour, name in drawn:
            name = name if name[:1] != "_" else f"\u200b{name}"  # matplotlib leaves such names out of a legend
            axes.plot(np.asarray(x)[some], np.asarray(y)[some], ".", color=colour, markersize=4, alpha=0.8, label=name)
        axes.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9.5, markerscale=2)
    return done[0]


def _count(value: float, _place: int = 0) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


@contextmanager
def _figure(width: float, height: float):
    """A figure of `width` x `height` inches; its SVG is in the list when the block ends. Sets nothing global."""
    done: list[str] = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser's fonts have it
        figure = Figure((width, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        yield figure, done
        for axes in figure.axes:
            axes.set_facecolor("none")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for mine, pages in CSS.items():
        svg = svg.replace(mine, pages)
    # A fixed size in points would not shrink on a narrow page.
    done.append(
        re.sub(r'(<svg [^>]*?)height="[^"]*" ([^>]*?)width="[^"]*"', r'\1\2role="img"', svg, count=1, flags=re.DOTALL)
    )
