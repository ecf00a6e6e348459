import io

from rich.console import Console

from levit_batch.job.chunks import Chunk
from levit_batch.table.plan import Done, Plan
from pipelines.screen.progress import Display, clock


def chunk(first, stop):
    return Chunk("s", "", "0" * 8, first, stop)


def display(terminal):
    file = io.StringIO()
    return Display(Console(file=file, force_terminal=terminal, width=200, soft_wrap=True, highlight=False)), file


def record(rows, **errors):
    return {"rows": rows, "errors": errors}


def test_what_was_done_before_counts_and_it_ends_at_a_hundred():
    shown, file = display(terminal=False)
    plan = Plan(chunks=3, rows=300, done_rows=100, done=Done(chunks=[chunk(0, 100)]), pending=[chunk(100, 200), chunk(200, 300)])
    with shown.run(plan):
        assert file.getvalue().startswith(" 33%  100 of 300 rows")
        shown.add(record(100, decode=2))
        assert "67%" in shown.line() and "2 error rows" in shown.line() and "left" in shown.line()
        shown.add({"failed": "x", "chunk": "s"})
        assert "begun again" not in shown.line()
        shown.add(record(100) | {"begun_again": True})
    last = file.getvalue().splitlines()[-1]
    assert last.startswith("100%  300 of 300 rows") and "left" not in last
    assert last.endswith("2 error rows · chunks begun again: 1 · 1 chunk attempt failed")


def test_the_speed_is_that_of_the_work_not_of_the_start():
    shown, _ = display(terminal=False)
    with shown.run(Plan(chunks=2, rows=2000, pending=[chunk(0, 1000), chunk(1000, 2000)])):
        shown.add(record(1000) | {"seconds": {"decode": 40.0, "predict": 60.0}})
        assert " 10 images/s" in shown.line() and "1:40 left" in shown.line()


def test_a_bar_on_a_terminal():
    shown, file = display(terminal=True)
    with shown.run(Plan(chunks=1, rows=100, pending=[chunk(0, 100)])):
        shown.add(record(100))
    assert "100 of 100 rows" in file.getvalue() and "100%" in file.getvalue() and "no errors" in file.getvalue()


def test_chunks_are_counted_where_rows_are_unknown():
    shown, file = display(terminal=False)
    with shown.run(Plan(chunks=2, rows=0, pending=[chunk(0, None), chunk(0, None)])):
        shown.add(record(1234))
        assert shown.line().startswith(" 50%  1 of 2 chunks")
    assert "starting on 2 chunks" in file.getvalue()


def test_nothing_pending_shows_nothing():
    shown, file = display(terminal=False)
    with shown.run(Plan(chunks=1, rows=5, done_rows=5, done=Done(chunks=[chunk(0, 5)]))):
        pass
    assert file.getvalue() == ""


def test_silence():
    shown = Display.silent()
    with shown.run(Plan(chunks=1, rows=5, pending=[chunk(0, 5)])):
        shown.add(record(5))
        shown.say("nobody hears this")


def test_clock():
    assert [clock(5), clock(65), clock(3700)] == ["0:05", "1:05", "1:01:40"]
