"""A cron line: read by `cronsim` as cron itself reads it, and said in the words of other schedulers."""

import zoneinfo
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from levit_batch.errors import ConfigError

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6))
BAD = ("Bad minute", "Bad hour", "Bad day-of-month", "Bad month", "Bad day-of-week")  # what cronsim says
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
SHORT = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
         "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}  # fmt: skip
DAY_MINUTES = 24 * 60


@dataclass(frozen=True)
class Cron:
    """Five fields, and the values that each allows (Sunday is 0).

    both: a day has to be right in the month *and* in the week. So cron has it where one of the two fields begins with `*`, as in
    `0 2 */2 * mon`, the odd Mondays; else one of the two is enough.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    both: bool
    timezone: str

    @classmethod
    def parse(cls, line: str, timezone: str = "UTC") -> "Cron":
        """Raises ConfigError that names the wrong field, or the unknown time zone."""
        if timezone not in zoneinfo.available_timezones():
            raise ConfigError(f"--timezone {timezone}: not a time zone; write it like Europe/Berlin, or UTC")
        words = SHORT.get(line.strip().lower(), line).split()
        if len(words) != len(FIELDS):
            raise ConfigError(f'--cron "{line}": needs five fields (minute hour day month weekday), like "0 2 * * *"')
        sim = _read(words, line)
        values = (sim.minutes, sim.hours, sim.days, sim.months, {day % 7 for day in sim.weekdays})
        fields = tuple(map(_written, words, values, range(5)))
        return cls(fields, tuple(tuple(sorted(some)) for some in values), sim.day_and, timezone)

    def __str__(self) -> str:
        """The line for cron, in numbers: not every cron knows `10/25`, or Sunday as 7."""
        return " ".join(self.fields)

    def on_calendar(self) -> list[str]:
        """systemd's OnCalendar, which knows days that are right in month and week: two of them where cron takes either."""
        minutes, hours, days, months, weekdays = (_choice(some, at, 2) for at, some in enumerate(self.values))
        week = "" if weekdays == "*" else ",".join(DAYS[n] for n in self.values[4]) + " "
        dates = [f"{week}*-{months}-{days}"] if self.both else [f"*-{months}-{days}", f"{week}*-{months}-*"]
        every_day = f"*-{months}-*"
        dates = [every_day] if every_day in dates else dates
        return [f"{date} {hours}:{minutes}:00 {self.timezone}" for date in dates]

    def elsewhere(self) -> str:
        """The line for schedulers that take `*/2` among the days for a choice like any other: KubeRay's (robfig/cron), and maybe
        the Hub's. Raises ConfigError where they would start on other days than cron."""
        day, weekday = self.fields[2], self.fields[4]
        if "*" in (day, weekday) or "*" not in day + weekday:
            return str(self)
        raise ConfigError(
            f'--cron "{self}": cron takes the days that are right in the month and in the week, this scheduler those that are '
            "right in one of them; write * for one of the two, or use --target systemd or cron"
        )

    def in_utc(self, now: datetime) -> str:
        """`elsewhere` for a scheduler that knows UTC only, at the offset that holds `now`. Raises ConfigError where no line says
        the same: a shift over midnight moves days, and one of half an hour can tear a list of times apart."""
        line, offset = self.elsewhere(), now.astimezone(zoneinfo.ZoneInfo(self.timezone)).utcoffset().total_seconds() // 60
        if not offset:
            return line
        times = {60 * hour + minute - int(offset) for hour in self.values[1] for minute in self.values[0]}
        fields = [{time % 60 for time in times}, {time % DAY_MINUTES // 60 for time in times}]
        moved = any(time // DAY_MINUTES for time in times) and self.fields[2:] != ("*", "*", "*")
        if moved or len(fields[0]) * len(fields[1]) != len(times):
            raise ConfigError(f'--cron "{self}" in {self.timezone} is no single line in UTC; give it in UTC: --timezone UTC')
        return " ".join([*(_choice(some, at) for at, some in enumerate(fields)), *self.fields[2:]])


def _read(words: list[str], line: str) -> CronSim:
    try:
        sim = CronSim(" ".join(words), datetime(2000, 1, 1, tzinfo=UTC))
        values = enumerate((sim.minutes, sim.hours, sim.days, sim.months, sim.weekdays))
        # cronsim also knows L (the last day) and 1#2 (the second Monday), which cron does not.
        wrong = next((at for at, some in values if not all(isinstance(n, int) and n >= 0 for n in some)), None)
    except CronSimError as e:
        wrong = BAD.index(str(e))
    if wrong is None:
        return sim
    name, low, high = FIELDS[wrong]
    article = "an" if name == "hour" else "a"
    raise ConfigError(f'--cron "{line}": {words[wrong]} is not {article} {name} ({low} to {high}, *, a-b, a,b or */n)')


def _written(word: str, values: Collection[int], at: int) -> str:
    """A field in numbers. One that begins with `*` does so here, too: among the days that means more than its numbers."""
    every = _choice(values, at) == "*"
    if word.startswith("*"):
        return "*" if every else word
    return "{1}-{2}".format(*FIELDS[at]) if every else _choice(values, at)


def _choice(values: Collection[int], at: int, width: int = 1) -> str:
    _, low, high = FIELDS[at]
    return "*" if len(values) > high - low else ",".join(f"{n:0{width}d}" for n in sorted(values))
