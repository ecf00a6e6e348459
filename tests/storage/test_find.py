"""Which files a path names, and what each of them is called, tonight and every night."""

import os
from pathlib import Path

import pytest

from levit_batch.errors import SourceError
from levit_batch.storage.find import base_of, find_files

ENDINGS = (".parquet",)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def names(paths, **options) -> list[str]:
    return [file.name for file in find_files(paths, ENDINGS, **options)]


def test_a_name_depends_on_the_file_and_on_what_is_configured_alone(tmp_path):
    folder = make(tmp_path, "mon/part-0.parquet", "tue/part-1.parquet")
    lists = [f"{folder}/mon/*.parquet", f"{folder}/tue/*.parquet"]
    assert names(lists) == ["mon/part-0.parquet", "tue/part-1.parquet"]
    make(folder, "tue/part-0.parquet")  # a name that is there twice from now on
    assert names(lists) == ["mon/part-0.parquet", "tue/part-0.parquet", "tue/part-1.parquet"]
    (folder / "mon/part-0.parquet").unlink()
    make(folder, "mon/part-9.parquet")
    assert names(lists) == ["mon/part-9.parquet", "tue/part-0.parquet", "tue/part-1.parquet"]


@pytest.mark.parametrize(
    ("paths", "base", "found"),
    [
        ("{}/mon", "mon", ["a.parquet"]),
        ("{}/mon/a.parquet", "mon", ["a.parquet"]),
        ("{}/mon/*.parquet", "mon", ["a.parquet"]),
        ("{}/{{mon,tue}}/a.parquet", "", ["mon/a.parquet", "tue/a.parquet"]),
        (["{}/tue", "{}/mon/", "{}/mon", "{}/tue/../mon"], "", ["mon/a.parquet", "tue/a.parquet"]),
        (["{}/mon/a.parquet", "{}/tue/a.parquet"], "", ["mon/a.parquet", "tue/a.parquet"]),
        (["{}", "{}/mon"], "", ["mon/a.parquet", "tue/a.parquet"]),
        ("{}/*/[!b].parquet", "", ["mon/a.parquet", "tue/a.parquet"]),
        ("{}/**/a.parquet", "", ["mon/a.parquet", "tue/a.parquet"]),
        ("{}/**", "", ["mon/a.parquet", "tue/a.parquet"]),
    ],
)
def test_bases_and_names(tmp_path, paths, base, found):
    make(tmp_path, "mon/a.parquet", "tue/a.parquet")
    paths = [p.format(tmp_path) for p in paths] if isinstance(paths, list) else paths.format(tmp_path)
    assert names(paths) == found
    assert base_of(paths) == os.path.join(tmp_path, base).rstrip("/")


def test_relative_paths_start_where_the_command_runs(tmp_path, monkeypatch):
    make(tmp_path, "mon/a.parquet")
    monkeypatch.chdir(tmp_path)
    for path in ("mon", "./mon/", "mon/*.parquet", ["mon/*.parquet"], f"file://{tmp_path}/mon"):
        assert names(path) == ["a.parquet"] and base_of(path) == str(tmp_path / "mon")


def test_globs_mean_what_they_mean_elsewhere(tmp_path):
    make(tmp_path, "a1.parquet", "b1.parquet", "b2.parquet", "c/b3.parquet")
    assert names(f"{tmp_path}/[!a]*.parquet") == ["b1.parquet", "b2.parquet"]
    assert names(f"{tmp_path}/[ab]1.parquet") == ["a1.parquet", "b1.parquet"]
    assert names(f"{tmp_path}/b?.parquet") == ["b1.parquet", "b2.parquet"]
    assert names(f"{tmp_path}/**/b*.parquet") == ["b1.parquet", "b2.parquet", "c/b3.parquet"]
    with pytest.raises(SourceError, match=r"source.path: .*\*\*"):
        names(f"{tmp_path}/a**.parquet")


def test_folders_called_like_a_pattern(tmp_path):
    make(tmp_path, "[2024]/a.parquet", "{x,y}/b.parquet", "what?/c.parquet", "2/d.parquet")
    assert names(f"{tmp_path}/[2024]") == ["a.parquet"]
    assert names(f"{tmp_path}/{{x,y}}") == ["b.parquet"]
    assert names(f"{tmp_path}/what?/c.parquet") == ["c.parquet"]
    assert names(f"{tmp_path}/[[]2024]/*.parquet") == ["[2024]/a.parquet"]


def test_each_file_once_whatever_leads_to_it(tmp_path):
    root, other = make(tmp_path / "in", "a.parquet", "sub/b.parquet"), make(tmp_path / "other", "x/y.parquet")
    (root / "sub/up").symlink_to(root)  # a folder in itself
    (root / "a-link.parquet").symlink_to(root / "a.parquet")
    (root / "again").symlink_to(root / "sub")
    (root / "out").symlink_to(other)
    (root / "out2").symlink_to(other)
    (other / "back").symlink_to(root / "sub")
    (other / "x/round").symlink_to(other)
    assert names(str(root)) == ["a.parquet", "out/x/y.parquet", "sub/b.parquet"]
    assert names([str(root), f"{root}/sub", str(root / "again")]) == ["a.parquet", "out/x/y.parquet", "sub/b.parquet"]
    assert names(f"{root}/again/*.parquet") == ["b.parquet"], "the only way that is configured"


def test_what_is_no_file_is_left_out_and_what_cannot_be_read_is_not(tmp_path):
    make(tmp_path, "a.parquet", "_b.parquet", ".c.parquet", "_d/e.parquet", "f.txt")
    (tmp_path / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "nowhere.parquet").symlink_to(tmp_path / "gone")
    assert names(str(tmp_path)) == ["a.parquet", "nowhere.parquet"]
    assert names(f"{tmp_path}/_b.parquet") == ["_b.parquet"], "as it is named"


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path):
    make(tmp_path, "a.parquet")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.parquet")).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"bad\\xff.parquet: its name is not UTF-8; rename it"):
        names(str(tmp_path))
    assert names(f"{tmp_path}/a*.parquet") == ["a.parquet"]


def test_an_output_inside_the_source_is_no_part_of_it(tmp_path):
    make(tmp_path, "a.parquet", "out/data/x/000000000-000000009.aaaaaaaa.parquet", "outer/b.parquet")
    assert names(str(tmp_path), leave_out=str(tmp_path / "out")) == ["a.parquet", "outer/b.parquet"]
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert names(str(tmp_path), leave_out=str(tmp_path / "link")) == ["a.parquet", "outer/b.parquet"]


def test_places_on_different_stores(tmp_path):
    folder = make(tmp_path, "a.parquet")
    assert base_of([str(folder), "s3://bucket/x"]) == "" and base_of("https://host.example/x/a.parquet?b=1") == "https://host.example/x"


@pytest.mark.parametrize("pattern", ["", "/*.parquet"])
def test_an_output_that_holds_the_whole_source_is_named(tmp_path, pattern):
    make(tmp_path, "in/a.parquet")
    for out in (tmp_path, tmp_path / "in"):
        with pytest.raises(SourceError, match=f"lies in {out}, which is output.path and is left out"):
            names(f"{tmp_path}/in{pattern}", leave_out=str(out))
    with pytest.raises(SourceError, match="the folder is there, but nothing in it"):
        names(f"{tmp_path}/in/*.arrow", leave_out=str(tmp_path / "in"))
