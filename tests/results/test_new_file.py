"""Files that a command is told to write: nothing that is there is lost, and what cannot be written is a line before the work."""

import shutil

import pyarrow.parquet as pq
import pytest

from levit_batch.storage.place import place
from pipelines.cli import main
from tests.support.outputs import make_output

COMMANDS = {
    "join --out": "x.parquet",
    "select --labelled --out": "x.csv",
    "select --labelled --html": "x.html",
    "review --html": "x.html",
    "search part-00.parquet:1 --html": "x.html",
    "diff OUT --html": "x.html",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("new") / "job")


@pytest.fixture
def refused(made, capsys):
    """Run a command whose last option names a file; the line that refuses it."""

    def run(command: str, file) -> str:
        name, *words = command.replace("OUT", str(made.path)).split()
        code = main([name, str(made.path), *words, str(file)])
        said = capsys.readouterr()
        assert (code, said.out, said.err.count("\n")) == (2, "", 1)
        assert said.err.startswith(f"levit-batch: {words[-1]} {file}: ")
        return said.err

    return run


def files_of(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_written_into_the_output_or_where_nothing_can_be(command, made, refused, tmp_path):
    before, name = files_of(made.path), COMMANDS[command]
    (tmp_path / "link").symlink_to(made.path)
    for file in (made.path / name, made.path / "data" / name, tmp_path / "link" / name):
        assert "lies in the output" in refused(command, file)
    (tmp_path / "file").touch()
    for folder in ("/proc", tmp_path / "file"):
        line = refused(command, f"{folder}/{name}")
        assert "cannot be written: " in line and ".tmp" not in line and "Errno" not in line
    assert files_of(made.path) == before


@pytest.mark.parametrize("how", ["itself", "a link to it", "a link to its folder", "a new one of the pattern"])
def test_no_file_of_the_source_is_replaced_and_none_added(made, refused, how, tmp_path):
    source = made.path.parent / "source"
    (tmp_path / "link.parquet").symlink_to(source / "part-01.parquet")
    (tmp_path / "folder").symlink_to(source)
    before, file = files_of(source), {
        "itself": source / "part-01.parquet", "a link to it": tmp_path / "link.parquet",
        "a link to its folder": tmp_path / "folder/part-01.parquet", "a new one of the pattern": source / "new.parquet",
    }[how]  # fmt: skip
    for command in ("join --out", "select --labelled --out"):
        assert "lies among what" in refused(command, file)
    assert files_of(source) == before


@pytest.mark.parametrize("many", [False, True])
def test_a_source_that_is_a_folder_or_a_file(tmp_path, capsys, many):
    made = make_output(tmp_path / "job")
    source, job = tmp_path / "job/source", made.job
    paths = [str(source / "part-00.parquet"), str(source / "part-01.parquet")]
    job["config"]["source"]["path"] = paths if many else str(source)
    made.output.write_json("job.json", job)
    assert main(["join", str(made.path), "--out", paths[1]]) == 2 and "lies among what" in capsys.readouterr().err
    assert main(["select", str(made.path), "--html", str(source / "x.html")]) == (0 if many else 2)


def test_a_table_in_a_store(made, refused, s3, capsys):
    url = f"s3://{s3.bucket}/new/next.csv"
    assert main(["select", str(made.path), "--labelled", "-n", "3", "--out", url]) == 0
    capsys.readouterr()
    assert place(url).read_bytes().count(b"\n") == 4
    assert "is there already" in refused("select --labelled --out", url)
    for address in ("https://127.0.0.1:9/x.csv", "hf://datasets/a/b/x.csv"):
        assert "can only be read" in refused("select --labelled --out", address)


def test_a_table_replaces_nothing_and_a_page_only_a_page(made, refused, tmp_path, capsys):
    file, page = tmp_path / "mine.parquet", tmp_path / "page.html"
    shutil.copy(made.path.parent / "source/part-00.parquet", file)
    before = file.read_bytes()
    for command in ("join --out", "select --labelled --out"):
        assert "is there already; name another file, or delete it first" in refused(command, file)
        assert "ends in " in refused(command, tmp_path / "table.xlsx")
    assert "ends in .parquet" in refused("join --out", tmp_path / "table.csv")
    assert "ends in .html or .htm" in refused("review --html", file)
    assert file.read_bytes() == before and [*tmp_path.iterdir()] == [file]
    page.write_text("an earlier page")
    assert main(["select", str(made.path), "--labelled", "--html", str(page)]) == 0 and "<html" in page.read_text()
    assert main(["join", str(made.path), "--out", str(tmp_path / "new/joined.parquet")]) == 0
    assert pq.read_metadata(tmp_path / "new/joined.parquet").num_rows == 120
