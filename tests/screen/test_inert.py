"""Nothing that a terminal would obey reaches it: from class names, columns, paths, errors and JSON."""

import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from levit_batch.errors import JobError
from pipelines import cli
from pipelines.screen.inert import inert, inert_cell, inert_output
from pipelines.screen.progress import Display
from tests.support.outputs import make_output

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.\u2066\r\x7f"
LINES = "two\nlines\tand a tab"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def harmless(text: str) -> bool:
    return inert(text) == text and "\r" not in text


@pytest.fixture
def made(tmp_path):
    """An output whose first row's note and a class's name are not for terminals."""
    made = make_output(tmp_path, classes=(EVIL, LINES, "blue", "green, dark"))
    for file in made.path.glob("data/*/*.parquet"):
        table = pq.read_table(file)
        notes = pa.array([EVIL if i % 2 else LINES for i in range(table.num_rows)])
        at = table.schema.get_field_index("note")
        pq.write_table(table.set_column(at, table.schema.field(at), notes), file)
    return made


def run(capsys, *words: str) -> tuple[int, str]:
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    assert harmless(said.out) and harmless(said.err)
    return code, said.out + said.err


def test_what_is_seen_and_what_is_left_alone():
    assert inert(EVIL) == "\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202egpj.\\u2066\\u000d\\u007f"
    assert inert("\x1b[1;31mred\x1b[0m") == "red" and inert("bad\udcff.png") == "bad\\udcff.png"
    for text in (LINES, "größe · 日本語 🙂 שלום"):
        assert inert(text) == text
    assert inert_cell(LINES) == "two\\u000alines\\u0009and a tab"


def test_commands_print_nothing_that_steers(made, capsys):
    _, text = run(capsys, "show", made.path, "--columns", "label_name,note,top_labels,top_scores")
    assert "\\u001b]0;owned" in text and "two\\u000alines" in text
    for words in (("evaluate", made.path, "--no-pictures"), ("diff", made.path, made.path), ("history", made.path)):
        assert run(capsys, *words)[0] == 0
    for words in (("show", f"/none/{EVIL}"), ("show", made.path, "--label", EVIL + "x"), ("models", EVIL)):
        code, text = run(capsys, *words)
        assert code == 2 and "\\u001b" in text


def test_json_says_the_same(made, capsys):
    code, text = run(capsys, "show", made.path, "--json", "-n", "40")
    rows = [json.loads(line) for line in text.splitlines()]
    assert code == 0 and {row["label_name"] for row in rows} & {EVIL, LINES}


def test_wrong_words_and_errors_of_a_job(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        cli.main(["show", "x", EVIL])
    assert harmless(capsys.readouterr().err)
    from pipelines.commands import schema

    def fails(args):
        raise JobError(f"{EVIL}: {LINES}")

    monkeypatch.setattr(schema, "run", fails)
    code, text = run(capsys, "schema")
    assert code == 1 and "two\nlines\tand" in text


def test_progress_draws_its_bar_and_says_inert_lines(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with inert_output():
        display = Display.on_stderr()
        with Progress(console=display.console, transient=True) as bar:
            bar.add_task("", total=3)
            display.say(EVIL)
    text = terminal.getvalue()
    assert "\x1b[" in text and "\\u001b]0;owned" in text and "\u202e" not in text and "\x1b]0" not in text
