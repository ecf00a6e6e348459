"""Numbers, times and sizes as a person reads them."""

from datetime import UTC, datetime


def count(value: float | None) -> str:
    return "–" if value is None else f"{round(value):,}"


def plural(value: float, word: str, words: str | None = None) -> str:
    """A number and what it counts: `1 row`, `2,000 rows`; `words` where more than one is not `word` with an s."""
    return f"{value:,.15g} {word if value == 1 else words or f'{word}s'}"


def percent(value: float | None) -> str:
    """A share as a percentage with three figures or so; never 100% or 0% when it is not."""
    if value is None:
        return "–"
    text = f"{value * 100:.1f}" if value >= 0.1 else f"{value * 100:.2f}"
    if value < 1 and float(text) >= 100:
        return "> 99.9%"
    return "< 0.01%" if value > 0 and float(text) == 0 else f"{text}%"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant figures."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(value: float | None) -> str:
    """Bytes in powers of 1000."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def when(value: str | None) -> str:
    """An ISO time as `2026-11-23 02:00 UTC`."""
    if not value:
        return "–"
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
