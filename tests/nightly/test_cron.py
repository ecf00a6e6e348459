"""Cron lines: checked field by field, and the same nights for cron, systemd, KubeRay and the Hub, over a year."""

import os
import re
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from levit_batch.errors import ConfigError
from pipelines.nightly.cron import Cron

SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
ZONE = "Asia/Tokyo"  # where no clock is changed: a scheduler each has its own idea of the hours that are not there
CALENDARS = [
    ("0 2 * * *", ["*-*-* 02:00:00 Asia/Tokyo"]),
    ("*/20 1-3 * * *", ["*-*-* 01,02,03:00,20,40:00 Asia/Tokyo"]),
    ("5 0 1,15 jan-mar *", ["*-01,02,03-01,15 00:05:00 Asia/Tokyo"]),
    ("0 2 * * mon-fri", ["Mon,Tue,Wed,Thu,Fri *-*-* 02:00:00 Asia/Tokyo"]),
    ("0 2 * * 0,7", ["Sun *-*-* 02:00:00 Asia/Tokyo"]),
    ("0 2 1 * 1", ["*-*-01 02:00:00 Asia/Tokyo", "Mon *-*-* 02:00:00 Asia/Tokyo"]),  # either
    ("10/25 4 * * *", ["*-*-* 04:10,35:00 Asia/Tokyo"]),
    ("@daily", ["*-*-* 00:00:00 Asia/Tokyo"]),
    ("0 2 */2 * mon", ["Mon *-*-01,03,05,07,09,11,13,15,17,19,21,23,25,27,29,31 02:00:00 Asia/Tokyo"]),  # both
    ("0 2 1-7 * */2", ["Sun,Tue,Thu,Sat *-*-01,02,03,04,05,06,07 02:00:00 Asia/Tokyo"]),
    ("0 2 1-31 * mon", ["*-*-* 02:00:00 Asia/Tokyo"]),
    ("0 2 31 */2 5-7", ["*-01,03,05,07,09,11-31 02:00:00 Asia/Tokyo", "Sun,Fri,Sat *-01,03,05,07,09,11-* 02:00:00 Asia/Tokyo"]),
    ("30 */6 */3 * *", ["*-*-01,04,07,10,13,16,19,22,25,28,31 00,06,12,18:30:00 Asia/Tokyo"]),
]
lines = pytest.mark.parametrize("line", [line for line, _ in CALENDARS])


def year(line: str) -> list[datetime]:
    """When cron runs `line` in 2026."""
    first, last = (datetime(year, 1, 1, tzinfo=ZoneInfo(ZONE)) for year in (2026, 2027))
    return list(takewhile(lambda time: time < last, CronSim(line, first - timedelta(seconds=1))))


def systemd_year(calendar: str, most: int) -> set[datetime]:
    """When systemd itself runs it in 2026, which is at most so often."""
    command = ["systemd-analyze", "calendar", f"--iterations={most + 1}", "--base-time=2025-12-31 14:59:59 UTC", calendar]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"TZ": "UTC"}).stdout
    found = re.findall(r"(?:Next elapse|Iter. #\d+): \w+ (.+) UTC", said)
    times = {datetime.fromisoformat(time).replace(tzinfo=UTC) for time in found}
    return {time for time in times if time.astimezone(ZoneInfo(ZONE)).year == 2026}


def robfig_days(line: str) -> list[date]:
    """The days of 2026 on which KubeRay runs it, by the rule of robfig/cron: `*` alone, not `*/2`, leaves it to the other field;
    Sunday is 0."""
    fields = line.split()
    assert not re.search(r"[78]", fields[4])
    day, month, week = (set(range(low, high + 1)) for low, high in ((1, 31), (1, 12), (0, 6)))
    chosen = [_chosen(text, all) for text, all in zip(fields[2:], (day, month, week), strict=True)]
    together = all if "*" in (fields[2], fields[4]) else any
    days = (date(2026, 1, 1) + timedelta(days=n) for n in range(365))
    return [d for d in days if d.month in chosen[1] and together((d.day in chosen[0], d.isoweekday() % 7 in chosen[2]))]


def _chosen(text: str, all: set[int]) -> set[int]:
    if text.startswith("*"):
        return set(sorted(all)[:: int(text[2:] or 1)])
    low, _, high = text.partition("-")
    return set(range(int(low), int(high) + 1)) if high else {int(part) for part in text.split(",")}


@pytest.mark.parametrize(("line", "calendar"), CALENDARS)
def test_systemd_calendar(line, calendar):
    assert Cron.parse(line, ZONE).on_calendar() == calendar


@lines
def test_systemd_runs_on_the_same_nights(line):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not here; the test above holds what it is told")
    expected = set(year(line.replace("@daily", "0 0 * * *")))
    calendars = Cron.parse(line, ZONE).on_calendar()
    assert set().union(*(systemd_year(calendar, len(expected)) for calendar in calendars)) == expected


@lines
def test_every_cron_runs_what_it_is_given_on_the_same_nights(line):
    """Numbers only: Debian's cron does not know `10/25`."""
    said = str(Cron.parse(line, ZONE))
    assert re.fullmatch(r"[\d*/, -]+", said) and not re.search(r"\d/", said)
    assert year(said) == year(line.replace("@daily", "0 0 * * *"))


@lines
def test_kuberay_runs_on_the_same_nights_or_is_not_told_to(line):
    cron = Cron.parse(line, ZONE)
    if "/" in cron.fields[2] + cron.fields[4] and "*" not in (cron.fields[2], cron.fields[4]):
        with pytest.raises(ConfigError, match="this scheduler those that are right in one of them"):
            cron.elsewhere()
        with pytest.raises(ConfigError, match="this scheduler"):
            cron.in_utc(WINTER)
    else:
        assert robfig_days(cron.elsewhere()) == sorted({time.date() for time in year(line.replace("@daily", "0 0 * * *"))})


@pytest.mark.parametrize(
    ("line", "zone", "said"),
    [
        ("0 2 * *", "UTC", "needs five fields"),
        ("0 0 2 * * *", "UTC", "needs five fields"),  # cronsim would take seconds
        ("0 24 * * *", "UTC", "24 is not an hour"),
        ("60 2 * * *", "UTC", "60 is not a minute"),
        ("0 5-2 * * *", "UTC", "5-2 is not an hour"),
        ("0 2 0 * *", "UTC", "0 is not a day of the month"),
        ("0 2 30 2 *", "UTC", "30 is not a day of the month"),  # no February has it
        ("0 2 L * *", "UTC", "L is not a day of the month"),
        ("0 2 * * 1#2", "UTC", "1#2 is not a day of the week"),
        ("0 2 * * mo", "UTC", "mo is not a day of the week"),
        ("*/0 2 * * *", "UTC", "is not a minute"),
        ("0 2 * * *; rm", "UTC", "needs five fields"),
        ("0 2 * * $(x)", "UTC", r"\$\(x\) is not a day of the week"),
        ("0 2 * * *", "Berlin", "not a time zone"),
    ],
)
def test_mistakes_name_the_field(line, zone, said):
    with pytest.raises(ConfigError, match=said):
        Cron.parse(line, zone)


@pytest.mark.parametrize(
    ("line", "zone", "now", "utc"),
    [
        ("30 2 * * *", "Europe/Berlin", SUMMER, "30 0 * * *"),
        ("30 2 * * *", "Europe/Berlin", WINTER, "30 1 * * *"),
        ("0 1 * * *", "Europe/Berlin", SUMMER, "0 23 * * *"),
        ("0 2 * * 1", "Europe/Berlin", WINTER, "0 1 * * 1"),
        ("0 * * * *", "Europe/Berlin", WINTER, "0 * * * *"),
        ("0 6 * * 7", "Asia/Kolkata", WINTER, "30 0 * * 0"),
        ("0,30 6-7 * * *", "Asia/Kolkata", WINTER, None),
        ("0 1 * * 1", "Europe/Berlin", SUMMER, None),  # on a Sunday, there
        ("0 * * * 1", "Europe/Berlin", SUMMER, None),
        ("0 2 * * 1", "UTC", WINTER, "0 2 * * 1"),
    ],
)
def test_utc_for_schedulers_that_know_no_other(line, zone, now, utc):
    cron = Cron.parse(line, zone)
    if utc is None:
        with pytest.raises(ConfigError, match="no single line in UTC"):
            cron.in_utc(now)
        return
    assert cron.in_utc(now) == utc
    midnight = now.replace(hour=12).astimezone(ZoneInfo(zone))
    assert takes(CronSim(utc, midnight.astimezone(UTC))) == takes(CronSim(line, midnight))


def takes(times: CronSim) -> list[datetime]:
    return [next(times).astimezone(UTC) for _ in range(8)]  # before a clock is changed
