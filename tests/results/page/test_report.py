"""The page: what it says, that it loads nothing, escapes everything and stays readable with a thousand classes."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from levit_batch.results.metrics import measure
from levit_batch.results.page import formats, plots
from levit_batch.results.page.report import render, write_report
from levit_batch.results.page.samples import pick_samples, thumbnails
from levit_batch.sources.source import open_source
from levit_batch.table.read import runs_of
from tests.support.outputs import make_output


def page(made, runs=None, job=None) -> str:
    samples = thumbnails(open_source(made.config.source), pick_samples(made.output, 4))
    return render(str(made.output), job or made.job, runs or runs_of(made.output), measure(made.output), samples)


class Reader(HTMLParser):
    """Text, tags and addresses of a page; raises when tags do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.open, self.addresses = "", [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action") and value]
        if tag not in ("meta", "img", "br", "path", "rect", "use", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "use", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " " + data.strip() if data.strip() else ""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("report"), per_head=True, runs=4)


@pytest.fixture(scope="module")
def text(made):
    return Reader(page(made)).text


def test_the_page_says_what_was_run_and_how_it_went(made, text):
    metrics = measure(made.output)
    for expected in (
        "facebook/levit-128S", "120", "error rows (1.67%)", formats.percent(metrics["top1"]), "done with errors",
        "2026-11-04 02:00 UTC", "76.5", "predict", "1.23 GB", "Most confused", "Calibration", "Surest rows",
        "Least sure rows", "Surest mistakes", "null: no image", "decode: not an image", "new rows", "images per second",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_page_loads_nothing(made):
    html = page(made)
    addresses = Reader(html).addresses
    pictures = [a for a in addresses if a.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 12
    assert all(a.startswith("#") for a in addresses if a not in pictures)
    assert "default-src 'none'" in html and "<script" not in html and "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_plots_follow_the_page_and_are_well_formed(made):
    html = page(made)
    found = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(found) == 4
    for svg in found:
        ET.fromstring(svg)
        assert "var(--main)" in svg and not re.search(r"#0[1-5]0[1-5]0[1-5]", svg)


def test_what_users_wrote_is_escaped(tmp_path):
    evil = "<script>alert(1)</script> & $x$"
    made = make_output(tmp_path, classes=(evil, "b", "c", "d"), accuracy=0.5)
    html = page(made, job=made.job | {"dtype": evil})
    assert "<script" not in html and "alert(1)" in html
    assert "$x$" in Reader(html).text


def test_no_secret_in_a_page(made):
    job = made.job
    job["config"]["source"]["path"] = "https://key:word@host/x.parquet?X-Amz-Signature=abc123"
    run = runs_of(made.output)[-1] | {"failed": [{"chunk": "x", "reason": "GET https://h/y?sig=abc123 said 403"}]}
    html = page(made, runs=[run], job=job)
    assert "abc123" not in html and "key:word" not in html and "https://h/y" in html


def test_a_thousand_classes_stay_readable(tmp_path):
    names = tuple(f"class number {i} with rather a long name, and then some" for i in range(1000))
    made = make_output(tmp_path, classes=names, rows=150, top_k=5, embeddings="none")
    html = page(made)
    assert len(re.findall(r"class number \d+ with rather a l", html)) < 200
    assert "The 30 most frequent of" in Reader(html).text


def test_a_page_without_targets_runs_or_good_rows(tmp_path):
    made = make_output(tmp_path, shards=1, rows=4, bad=4, target=None, runs=0)
    text = Reader(page(made)).text
    assert "no run recorded" in text and "Accuracy" not in text and "error rows (100.0%)" in text


def test_a_record_of_another_version_does_not_break_the_page(made):
    text = Reader(page(made, runs=[{"started": "2026-11-01T02:00:00+00:00", "state": "failed", "rows": 0}])).text
    assert "failed" in text and "2026-11-01 02:00 UTC" in text


def test_write_report(made):
    write_report(made.output, made.job, [], measure(made.output), [])
    assert (made.path / "report.html").read_text().startswith("<!doctype html>")


def test_drift_is_shown(made):
    check = {"name": "label_psi", "title": "label shift (PSI)", "value": 0.31, "threshold": 0.25, "breach": True}
    few = {"name": "embedding_cosine", "title": "embedding", "value": 0.1, "threshold": 0.1, "allowed": 1.76, "judged": False}
    drift = {"verdict": "drift", "reference": {"runs": 3, "rows": 9}, "checks": [check, few]}
    runs = runs_of(made.output)
    runs[-1]["drift"] = drift
    text = Reader(page(made, runs=runs)).text
    assert "too few rows to judge" in text and "1.76" not in text
    assert "label shift (PSI)" in text and "0.31" in text and "Against 3 earlier runs" in text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.count(1234567), "1,234,567"), (formats.percent(0.97364), "97.4%"), (formats.percent(0.99999), "> 99.9%"),
        (formats.percent(1.0), "100.0%"), (formats.percent(0.0), "0.00%"), (formats.percent(1e-7), "< 0.01%"),
        (formats.figure(0.012345), "0.0123"), (formats.figure(12345.6), "12,346"), (formats.figure(61.54), "61.5"),
        (formats.plural(1, "row"), "1 row"), (formats.plural(1_234_567, "row"), "1,234,567 rows"),
        (formats.plural(0, "copy", "copies"), "0 copies"), (formats.plural(0.5, "CPU"), "0.5 CPUs"),
        (formats.seconds(3.14), "3.1 s"), (formats.seconds(200), "3 min 20 s"), (formats.seconds(7384), "2 h 03 min"),
        (formats.size(1_234_567_890), "1.23 GB"), (formats.size(512), "512 B"),
        (formats.when("2026-11-23T03:20:00.5+01:00"), "2026-11-23 02:20 UTC"), (formats.when(None), "–"),
        (plots.short("a" * 50), "a" * 33 + "…"),
    ],
)  # fmt: skip
def test_numbers_as_a_person_reads_them(shown, expected):
    assert shown == expected
