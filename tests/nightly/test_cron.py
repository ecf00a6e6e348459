"""Cron lines: checked field by field, and said in systemd's words and in UTC."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from levit_batch.errors import ConfigError
from pipelines.nightly.cron import Cron

SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
CALENDARS = [
    ("0 2 * * *", ["*-*-* 02:00:00 Europe/Berlin"]),
    ("*/20 1-3 * * *", ["*-*-* 01,02,03:00,20,40:00 Europe/Berlin"]),
    ("5 0 1,15 jan-mar *", ["*-01,02,03-01,15 00:05:00 Europe/Berlin"]),
    ("0 2 * * mon-fri", ["Mon,Tue,Wed,Thu,Fri *-*-* 02:00:00 Europe/Berlin"]),
    ("0 2 * * 0,7", ["Sun *-*-* 02:00:00 Europe/Berlin"]),
    ("0 2 1 * 1", ["*-*-01 02:00:00 Europe/Berlin", "Mon *-*-* 02:00:00 Europe/Berlin"]),  # either, as cron has it
    ("10/25 4 * * *", ["*-*-* 04:10,35:00 Europe/Berlin"]),
    ("@daily", ["*-*-* 00:00:00 Europe/Berlin"]),
]


@pytest.mark.parametrize(("line", "calendar"), CALENDARS)
def test_systemd_calendar(line, calendar):
    assert Cron.parse(line, "Europe/Berlin").on_calendar() == calendar


@pytest.mark.parametrize(("line", "calendar"), CALENDARS)
def test_systemd_itself_reads_the_calendar(line, calendar):
    if not shutil.which("systemd-analyze"):
        return  # the test above holds the same lines against what systemd took where it was there
    for text in Cron.parse(line, "Europe/Berlin").on_calendar():
        subprocess.run(["systemd-analyze", "calendar", text], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("line", "zone", "said"),
    [
        ("0 2 * *", "UTC", "needs five fields"),
        ("0 24 * * *", "UTC", "24 is not a hour"),
        ("60 2 * * *", "UTC", "60 is not a minute"),
        ("0 5-2 * * *", "UTC", "5-2 is not a hour"),
        ("0 2 0 * *", "UTC", "0 is not a day of the month"),
        ("0 2 * * mo", "UTC", "mo is not a day of the week"),
        ("*/0 2 * * *", "UTC", "is not a minute"),
        ("0 2 * * *; rm", "UTC", "needs five fields"),
        ("0 2 * * $(x)", "UTC", "is not a day of the week"),
        ("0 2 * * *", "Berlin", "not a time zone"),
    ],
)
def test_mistakes_name_the_field(line, zone, said):
    with pytest.raises(ConfigError, match=said.replace("$(", r"\$\(")):
        Cron.parse(line, zone)


def test_utc_for_schedulers_that_know_no_other():
    berlin = Cron.parse("30 2 * * *", "Europe/Berlin")
    assert (berlin.in_utc(SUMMER), berlin.in_utc(WINTER)) == ("30 0 * * *", "30 1 * * *")
    assert Cron.parse("0 1 * * *", "Europe/Berlin").in_utc(SUMMER) == "0 23 * * *"
    assert Cron.parse("0 2 * * 1", "Europe/Berlin").in_utc(WINTER) == "0 1 * * 1"
    assert Cron.parse("0 * * * *", "Europe/Berlin").in_utc(WINTER) == "0 * * * *"
    assert str(Cron.parse("0 2 * * 1")) == Cron.parse("0 2 * * 1").in_utc(WINTER) == "0 2 * * 1"


def test_shift_over_midnight_that_would_move_a_weekday_is_refused():
    with pytest.raises(ConfigError, match="no single line in UTC"):
        Cron.parse("0 1 * * 1", "Europe/Berlin").in_utc(SUMMER)
    with pytest.raises(ConfigError, match="no single line in UTC"):
        Cron.parse("0 6 * * *", "Asia/Kolkata").in_utc(SUMMER)
