"""SECURITY.md keeps what it says: each test that it names is there; and attacks that no other file of tests has."""

import ast
import json
import os
import re
from dataclasses import replace
from functools import cache

import pytest
from PIL import Image

from levit_batch.errors import CheckpointError, ConfigError, RowError
from levit_batch.job.chunks import Chunk
from levit_batch.job.load import read_yaml
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.pixels.decode import decode
from levit_batch.results.metrics import measure
from levit_batch.results.page.card import render_card
from levit_batch.results.page.templates import environment
from levit_batch.table import manifest
from levit_batch.table.compact import compact
from levit_batch.table.manifest import as_table, read_manifest, write_manifest
from levit_batch.table.read import require_files
from levit_batch.table.scan import scan
from pipelines.cli import main
from tests.support import ROOT
from tests.support.images import encode
from tests.support.models import TINY, signal_model
from tests.support.outputs import make_output

PAGE = (ROOT / "SECURITY.md").read_text()
EVIL = "<script>alert(1)</script>"
OUTSIDE = ["../x", "/etc/x", "a/../../../x", "..", ".", "", "x\0y", "data", "a\\..\\..\\x", "_lock/x", "é" * 300]


@cache
def defined_in(file):
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_attack_on_the_page_names_a_test_that_is_there():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| Attack", "|---"))]
    assert len(rows) >= 25
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test is named: {row}"
        for file, name in named:
            assert name in defined_in(file), f"{file} has no {name}"


def test_a_tag_in_a_yaml_file_runs_nothing(tmp_path):
    for tag in (f"!!python/object/apply:os.mkdir [{tmp_path}/ran]", "!!python/name:os.system", "!other x"):
        (tmp_path / "job.yaml").write_text(f"source: {tag}\n")
        with pytest.raises(ConfigError, match=r"job.yaml, line 1: not valid YAML: could not determine a constructor"):
            read_yaml(str(tmp_path / "job.yaml"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shard", OUTSIDE)
def test_no_name_of_a_shard_leads_out_of_its_folder(tmp_path, shard):
    made = make_output(tmp_path)
    for staged in (False, True):
        at = made.output.chunk_place(Chunk(shard, "", "0" * 8, 0, 4, staged=staged)).path
        within = os.path.relpath(at, made.path).split("/")
        assert os.path.normpath(at) == at and within[0] == ("_staging" if staged else "data") and len(within) == 3


def by_another(output, content):
    """A manifest that another process wrote: this one knows nothing of it."""
    write_manifest(output, content)
    manifest._last.clear()


@pytest.mark.parametrize("path", ["data/../../x.parquet", "/etc/passwd", "../x.parquet", "data/{folder}/../../../x.parquet"])
def test_a_manifest_of_somebody_else_leads_nowhere(tmp_path, path):
    made = make_output(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"not to be read")
    compact(made.output, lambda: None)
    honest = read_manifest(made.output)
    files = honest.files.to_pylist()
    files[0]["path"] = path.format(folder=require_files(made.output)[0].folder)
    by_another(made.output, replace(honest, files=as_table(files)))
    assert read_manifest(made.output) is None, "it is made again from the files"
    assert sum(table.num_rows for table in scan(made.output)) == made.table.num_rows


def test_folders_that_are_to_be_replaced_are_the_outputs_own(tmp_path):
    made = make_output(tmp_path)
    victim = made.path / "victim" / require_files(made.output)[0].written.name
    victim.parent.mkdir()
    victim.write_bytes(b"precious")
    compact(made.output, lambda: None)
    by_another(made.output, replace(read_manifest(made.output), publishing=("../victim",)))
    compact(made.output, lambda: None)
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("what", ["file", "folder", "card"])
def test_push_uploads_nothing_that_a_link_leads_to(tmp_path, hub, capsys, monkeypatch, what):
    made = make_output(tmp_path)
    assert main(["evaluate", str(made.path), "--no-pictures"]) == 0
    hub.tokens.add("hf_good")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key.parquet").write_bytes(b"SECRET")
    file = made.folder("part-00.parquet") / "000000090-000000099.0badc0de.parquet"
    link = {"file": file, "folder": made.path / "data/more", "card": made.path / "README.md"}[what]
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "private" if what == "folder" else tmp_path / "private/key.parquet")
    assert main(["push", str(made.path), "tester/labels"]) == 2
    assert "leads out of" in capsys.readouterr().err
    assert not any(b"SECRET" in file.read_bytes() for file in hub.folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    "change",
    [{"hidden_sizes": [10**6] * 3}, {"depths": [10**9, 1, 1]}, {"key_dim": [10**8] * 3}, {"attention_ratio": [10**9] * 3},
     {"mlp_ratio": [10**9] * 3}],
    ids=str,
)  # fmt: skip
def test_a_checkpoint_that_asks_for_a_huge_model_is_refused_before_it_takes_memory(tmp_path, change):
    signal_model(TINY).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("form", "mode"),
    [(form, "RGB") for form in ("AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "IM", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI",
                                "SGI", "SPIDER", "TGA", "TIFF", "WEBP")] + [("BLP", "P"), ("MSP", "1"), ("XBM", "1")],
)  # fmt: skip
def test_too_many_pixels_are_refused_in_every_format(form, mode):
    data = encode(Image.new("RGB", (256, 256)).convert(mode), form)
    with pytest.raises(RowError, match=r"^bomb: \d+x\d+ pixels"):
        decode(data, max_pixels=60_000)


def test_pages_and_cards_escape_what_others_wrote(tmp_path):
    """Names of classes, paths and columns, in each template."""
    for name in ("report.html", "diff.html", "rows.html", "card.md"):
        template = environment().from_string("{{ text }}")
        assert environment().get_template(name) and "<script" not in template.render(text=EVIL)
    made = make_output(tmp_path, name="a", classes=(EVIL, "b", "c", "d"), accuracy=0.3)
    other = make_output(tmp_path, name="b", classes=(EVIL, "b", "c", "d"), accuracy=0.9)
    assert main(["diff", str(made.path), str(other.path), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "alert(1)" in page and "<script>alert" not in page
    job = made.job
    job["config"]["source"]["path"] = f"x/{EVIL}/*.parquet"
    _, _, body = render_card(made.output, job, measure(made.output)).rpartition("\n---\n")
    assert "alert(1)" in body and "<script" not in body


def test_a_file_that_is_no_output_of_ours_is_one_line(tmp_path, capsys):
    """What `show` and `evaluate` are given may be anybody's."""
    made = make_output(tmp_path)
    file = require_files(made.output)[0].place
    for data in (b"", b"PAR1" + bytes(100) + b"PAR1", b"\xff" * 1000):
        file.write_bytes(data)
        assert main(["evaluate", str(made.path), "--no-pictures"]) == 2
        assert "cannot be read" in (said := capsys.readouterr().err) or "not a file that levit-batch wrote" in said
    file.write_bytes(b"")
    for text in ('["no", "job"]', "{", "7"):
        (made.path / "job.json").write_text(text)
        assert main(["show", str(made.path)]) == 2 and "job.json: not valid JSON" in capsys.readouterr().err
