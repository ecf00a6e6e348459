"""A cron line, checked, and said in systemd's words."""

import re
import zoneinfo
from dataclasses import dataclass
from datetime import datetime

from levit_batch.errors import ConfigError

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
NAMES = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11,
         "dec": 12, "sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}  # fmt: skip
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
SHORT = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
         "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}  # fmt: skip
PART = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")


@dataclass(frozen=True)
class Cron:
    """Five fields as they were written, and the values that each allows (None: all)."""

    fields: tuple[str, ...]
    values: tuple[tuple[int, ...] | None, ...]
    timezone: str

    @classmethod
    def parse(cls, line: str, timezone: str = "UTC") -> "Cron":
        """Raises ConfigError that names the wrong field, or the unknown time zone."""
        if timezone not in zoneinfo.available_timezones():
            raise ConfigError(f"--timezone {timezone}: not a time zone; write it like Europe/Berlin, or UTC")
        fields = tuple(SHORT.get(line.strip().lower(), line).split())
        if len(fields) != len(FIELDS):
            raise ConfigError(f'--cron "{line}": needs five fields (minute hour day month weekday), like "0 2 * * *"')
        values = (_values(text, *field, line=line) for text, field in zip(fields, FIELDS, strict=True))
        return cls(fields, tuple(values), timezone)

    def __str__(self) -> str:
        return " ".join(self.fields)

    def on_calendar(self) -> list[str]:
        """systemd's OnCalendar: two of them where cron would take either of two kinds of days."""
        minute, hour, day, month, weekday = self.values
        time = f"{_join(hour)}:{_join(minute)}:00 {self.timezone}"
        dates = []
        if day is not None or weekday is None:
            dates.append(f"*-{_join(month)}-{_join(day)}")
        if weekday is not None:
            names = ",".join(dict.fromkeys(DAYS[n] for n in weekday))
            dates.append(f"{names} *-{_join(month)}-*")
        return [f"{date} {time}" for date in dates]

    def in_utc(self, now: datetime) -> str:
        """The line for a scheduler that knows UTC only, at the offset that holds `now`. Raises ConfigError where no line
        says the same: a shift over midnight moves days, and some zones are not whole hours from UTC."""
        offset = now.astimezone(zoneinfo.ZoneInfo(self.timezone)).utcoffset().total_seconds() / 3600
        minute, hour, *days = self.fields
        if not offset or hour == "*":
            return str(self)
        hours = [n - offset for n in self.values[1]]
        moved = any(not 0 <= n < 24 for n in hours) and days != ["*", "*", "*"]
        if moved or offset != int(offset):
            raise ConfigError(
                f'--cron "{self}" in {self.timezone} is no single line in UTC; give it in UTC: --timezone UTC'
            )
        return " ".join([minute, ",".join(str(int(n % 24)) for n in sorted(n % 24 for n in hours)), *days])


def _values(text: str, name: str, low: int, high: int, line: str) -> tuple[int, ...] | None:
    if text == "*":
        return None
    values: set[int] = set()
    for part in text.split(","):
        match = PART.fullmatch(part)
        step = int(match["step"] or 1) if match else 0
        first = _number(match["first"], low) if match else None
        last = high if match and (match["first"] == "*" or match["step"]) else first
        if match and match["last"]:
            last = _number(match["last"], low)
        if first is None or last is None or not step or not low <= first <= last <= high:
            raise ConfigError(f'--cron "{line}": {part} is not a {name} ({low} to {high}, *, a-b, a,b or */n)')
        values |= set(range(first, last + 1, step))
    return tuple(sorted(values))


def _number(text: str, low: int) -> int | None:
    if text == "*":
        return low
    return int(text) if text.isdigit() else NAMES.get(text.lower())


def _join(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(f"{n:02d}" for n in values)
