"""evaluate, show and export as commands, on a finished output."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from levit_batch.errors import ConfigError, OutputError
from levit_batch.results.evaluate import source_of
from levit_batch.results.metrics import measure
from levit_batch.results.select import select
from pipelines.cli import main
from pipelines.screen.rows import cells
from tests.support.outputs import CLASSES, make_output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("show"))


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_rows_that_meet_every_condition(made):
    rows = made.table.to_pylist()
    found, more = select(made.output, where="score < 0.7 and target != label", label="blue", n=1000)
    expected = [
        r["row"] for r in rows
        if r["error"] is None and r["score"] < 0.7 and r["target"] not in (None, r["label"]) and r["label_name"] == "blue"
    ]  # fmt: skip
    assert found["row"].to_pylist() == expected and expected and not more


def test_the_first_n_and_whether_there_are_more(made):
    found, more = select(made.output, n=50)
    assert found["row"].to_pylist() == made.table["row"].to_pylist()[:50] and more
    assert select(made.output, n=120)[1] is False


def test_no_more_files_are_read_than_needed(tmp_path):
    made = make_output(tmp_path, chunk_rows=4)
    last = max(made.folder("part-02.parquet").iterdir())
    last.write_bytes(b"PAR1 damaged PAR1")
    assert select(made.output, n=5)[0].num_rows == 5
    with pytest.raises(OutputError, match="cannot be read .* delete it and run the job again"):
        select(made.output, n=1000)


def test_error_rows_and_columns(made):
    found, _ = select(made.output, errors=True, columns=["error", "image.path"])
    assert found.to_pylist()[0] == {"error": "null: no image", "image.path": "0/0038.png"} and found.num_rows == 2


def test_what_is_shown(made):
    head, texts = cells(select(made.output, n=4)[0].drop_columns("label"), list(CLASSES))
    assert head == ["shard", "row", "image.path", "note", "target", "label", "score", "next", "error"]
    row = made.table.slice(0, 1).to_pylist()[0]
    assert texts[0][2:6] == ["0/0000.png", "note 0", CLASSES[row["target"]], row["label_name"]] and texts[3][4] == ""
    assert texts[0][7].startswith(f"{CLASSES[row['top_labels'][1]]} {row['top_scores'][1]:.3f}, ")


@pytest.mark.parametrize(
    ("changes", "said"), [({"label": "gren"}, "did you mean green"), ({"columns": ["scores"]}, "columns here: shard")]
)
def test_wrong_names(made, changes, said):
    with pytest.raises(ConfigError, match=said):
        select(made.output, **changes)


def test_show_prints_a_table_and_json(made, capsys):
    code, out, _ = run(capsys, "show", str(made.path), "--errors")
    assert code == 0 and "decode: not an image" in out and out.rstrip().endswith("2 rows")
    code, out, _ = run(capsys, "show", str(made.path), "--label", "grey, light", "-n", "3", "--json")
    assert [json.loads(line)["label_name"] for line in out.splitlines()] == ["grey, light"] * 3
    row, truth = json.loads(out.splitlines()[0]), [r for r in made.table.to_pylist() if r["label_name"] == "grey, light"][0]
    assert list(row)[4:8] == ["target", "target_name", "label", "label_name"] and row["label"] == 3
    assert row["target"] == truth["target"] and row["target_name"] == CLASSES[truth["target"]]
    assert run(capsys, "show", str(made.path), "--where", "row > 1000")[1] == "no such rows\n"


def test_columns_are_called_what_they_hold(made, capsys):
    for names in ("embedding,top_labels", "label,label_name", "label_name,top_labels,top_scores"):
        columns = names.split(",")
        head, texts = cells(select(made.output, n=1, columns=columns)[0], list(CLASSES))
        assert head == (["label", "next"] if len(columns) == 3 else columns) and len(texts[0]) == len(head)
        _, out, _ = run(capsys, "show", str(made.path), "--columns", names, "--json", "-n", "1")
        assert list(json.loads(out)) == columns


def test_json_names_several_targets_and_needs_none(tmp_path, capsys):
    for target in ("list", None):
        made = make_output(tmp_path / str(target), target=target)
        row = json.loads(run(capsys, "show", str(made.path), "--json", "-n", "1")[1])
        assert row.get("target_name") == (", ".join(CLASSES[i] for i in row["target"]) if target else None)


@pytest.mark.parametrize("n", ["0", "-1", "1.5", "x"])
@pytest.mark.parametrize("command", [("show",), ("select",), ("search", "part-00.parquet:1")])
def test_no_rows_are_no_number_of_rows(made, capsys, command, n):
    with pytest.raises(SystemExit, match="2"):
        main([command[0], str(made.path), *command[1:], "-n", n])
    assert f"-n: {n}: give a whole number, 1 or more" in capsys.readouterr().err


def test_what_is_wrong_is_one_line_and_exit_code_2(made, capsys, tmp_path):
    for words in (
        ("show", str(made.path), "--where", "score <"), ("show", str(tmp_path / "nothing")), ("evaluate", str(tmp_path)),
        ("export", str(made.path), "--to", "cleanlab", "--out", str(tmp_path / "x")),
    ):  # fmt: skip
        code, out, err = run(capsys, *words)
        assert code == 2 and out == "" and err.startswith("levit-batch: ") and err.count("\n") == 1


def test_evaluate_writes_metrics_page_and_card(made, capsys):
    expected = measure(made.output)
    code, out, _ = run(capsys, "evaluate", str(made.path), "--json")
    assert code == 0 and json.loads(out) == expected == json.loads((made.path / "metrics.json").read_text())
    assert "data:image/jpeg" in (made.path / "report.html").read_text() and (made.path / "README.md").exists()
    code, out, _ = run(capsys, "evaluate", str(made.path), "--no-pictures")
    assert "Most confused" in out and f"{expected['top1'] * 100:.1f}%" in out
    assert "data:image/jpeg" not in (made.path / "report.html").read_text()


def test_evaluate_against_another_table(made, capsys):
    source = str(made.path.parent / "source/part-01.parquet")
    words = ("evaluate", str(made.path), "--target-table", source, "--target-column", "target", "--json")
    code, _, err = run(capsys, *words)
    assert code == 2 and "has no column shard, row" in err
    code, _, err = run(capsys, *words, "--on", "image")
    assert code == 2 and "image cannot be a key" in err

    code, out, _ = run(capsys, *words, "--on", "note")
    assert code == 0 and json.loads(out)["target"]["rows"] == 3 * 39 - 2


def test_export_prints_what_it_wrote(made, capsys, tmp_path):
    code, out, _ = run(capsys, "export", str(made.path), "--to", "numpy", "--out", str(tmp_path / "x"))
    assert (code, out) == (0, f"118 rows written to {tmp_path}/x; 2 left out\n")


class Seen:
    """A web server on this machine that remembers what it was asked."""

    def __init__(self):
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.command)
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/x.parquet"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def with_source(folder, **values):
    """An output whose job.json names another source."""
    made = make_output(folder)
    job = made.job
    job["config"]["source"] |= values
    made.output.write_json("job.json", job)
    return made


@pytest.mark.parametrize("key", ["path", "root"])
def test_a_strangers_output_opens_nothing_elsewhere_unless_asked(tmp_path, capsys, key):
    with Seen() as web:
        made = with_source(tmp_path, **{key: web.url})
        assert run(capsys, "evaluate", str(made.path))[0] == 0 and web.asked == []
        assert "evaluate --pictures" in (made.path / "report.html").read_text()
        assert run(capsys, "diff", str(made.path), str(made.path), "--html", str(tmp_path / "d.html"))[0] == 0
        assert web.asked == []
        run(capsys, "evaluate", str(made.path), "--pictures")
        assert web.asked or key == "root"


def test_urls_among_the_images_of_a_strangers_output_are_fetched_when_asked(tmp_path):
    job = with_source(tmp_path, allow_urls=True, url_hosts=["127.0.0.1"]).job
    assert [source_of(job, anywhere).config.allow_urls for anywhere in (False, True)] == [False, True]


@pytest.mark.parametrize("command", [("join",), ("export", "--to", "fiftyone")])
@pytest.mark.parametrize("path", ["s3://***@bucket/x/*.parquet", ["https://h/x.parquet?***"]])
def test_a_source_whose_secret_is_not_stored_is_not_opened(tmp_path, capsys, command, path):
    made = with_source(tmp_path, path=path)
    code, _, err = run(capsys, command[0], str(made.path), *command[1:], "--out", str(tmp_path / "x.parquet"))
    assert code == 2 and err.count("\n") == 1 and "holds a secret, which job.json does not store" in err
