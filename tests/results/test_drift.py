"""Nights drawn from one distribution raise no alarm, over many seeds; shifted ones do, and say why."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, ks_2samp

from levit_batch.job.config import DriftConfig, OutputConfig
from levit_batch.results.drift import PART, _cells, _chi_square, drift_of, judge, label_js, label_psi, score_ks
from levit_batch.table.output import Output
from levit_batch.table.stats import SCORE_BINS, add_stats, chunk_stats

CONFIG = DriftConfig()
WIDTH = 32
SIGNS = np.where(np.arange(WIDTH) % 2, 1, -1)


class Camera:
    """Draws nights of rows: `classes` with a skewed distribution, scores, embeddings around a centre of each class."""

    def __init__(self, classes: int, seed: int = 0):
        random = np.random.default_rng(seed)
        self.classes = classes
        self.shares = random.dirichlet(np.full(classes, 0.7))
        self.centres = random.normal(0.3, 1, (classes, WIDTH))

    def night(self, rows: int, seed: int, *, shares=None, score=(8, 2), lift=0.0, bad=0.005, divergence=0.03) -> dict:
        random = np.random.default_rng(seed)
        label = random.choice(self.classes, rows, p=self.shares if shares is None else shares)
        error = random.random(rows) < bad
        vectors = (self.centres[label] + random.normal(0, 1, (rows, WIDTH)) + lift * SIGNS).astype(np.float16)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), WIDTH, mask=pa.array(error))
        table = pa.table(
            {
                "label": pa.array(label, pa.int64(), mask=error),
                "score": pa.array(random.beta(*score, rows).astype(np.float32), mask=error),
                "embedding": lists,
                "head_divergence": pa.array(random.beta(1, 1 / divergence - 1, rows).astype(np.float32), mask=error),
                "error": pa.array(["decode: x" if e else None for e in error], pa.string()),
            }
        )
        return chunk_stats(table, self.classes)


@pytest.mark.parametrize(("classes", "rows"), [(3, 200), (10, 250), (10, 5000), (100, 200), (1000, 200), (1000, 3000)])
def test_nights_of_one_distribution_raise_no_alarm(classes, rows):
    camera = Camera(classes)
    nights = [camera.night(rows, seed) for seed in range(60)]
    verdicts = [judge(night, nights[max(0, i - 14) : i], CONFIG) for i, night in enumerate(nights) if i]
    assert [v["why"] for v in verdicts if v["verdict"] != "ok"] == []
    assert all(len(v["checks"]) == 6 for v in verdicts)


def test_noise_is_why():
    """Class by class, 300 rows of 1,000 classes are far beyond the threshold each night; cells and noise level tell better."""
    camera = Camera(1000)
    now, before = camera.night(300, 1), camera.night(300, 0)
    counts = np.array([[s["labels"].get(str(i), 0) + 0.5 for i in range(1000)] for s in (now, before)])
    q, p = counts / counts.sum(1, keepdims=True)
    assert ((q - p) * np.log(q / p)).sum() > CONFIG.label_psi
    psi = next(c for c in judge(now, [before], CONFIG)["checks"] if c["name"] == "label_psi")
    assert psi["value"] < psi["noise"] and not psi["breach"]


SHIFTS = {
    "label_psi": {"shares": "rolled"},
    "label_js": {"shares": "rolled"},
    "score_ks": {"score": (3, 3)},
    "embedding_cosine": {"lift": 1.5},
    "error_rate": {"bad": 0.08},
    "head_divergence": {"divergence": 0.2},
}


@pytest.mark.parametrize(("classes", "rows"), [(10, 400), (100, 1000), (1000, 3000)])
@pytest.mark.parametrize("name", SHIFTS)
def test_a_shifted_night_raises_its_alarm(name, classes, rows):
    camera = Camera(classes)
    shift = dict(SHIFTS[name])
    if shift.get("shares"):
        shift["shares"] = camera.shares[::-1]
    before = [camera.night(rows, seed) for seed in range(7)]
    for seed in range(100, 110):
        found = judge(camera.night(rows, seed, **shift), before, CONFIG)
        assert found["verdict"] == "drift" and name in found["breaches"], found
        title = next(c["title"] for c in found["checks"] if c["name"] == name)
        assert title in found["why"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_class_that_floods_one_night_is_named():
    camera = Camera(20)
    shares = camera.shares * 0.5
    shares[7] += 0.5
    found = judge(camera.night(1000, 1, shares=shares), [camera.night(1000, 0)], CONFIG)
    assert found["verdict"] == "drift" and found["moved"][0]["label"] == 7
    assert found["moved"][0]["now"] > 0.45 + found["moved"][0]["before"]


def test_figures_are_scipys_where_cells_are_classes():
    camera = Camera(4)
    now, before = camera.night(2000, 1), camera.night(3000, 2, shares=[0.1, 0.2, 0.3, 0.4])
    q, p = (np.array([s["labels"].get(str(i), 0) for i in range(4)], float) for s in (now, before))
    assert label_js(now, before)[0] == pytest.approx(jensenshannon(q, p, base=2), abs=2e-3)
    q, p = q / q.sum(), p / p.sum()
    assert label_psi(now, before)[0] == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=0.02)
    middles = (np.arange(SCORE_BINS) + 0.5) / SCORE_BINS
    samples = [np.repeat(middles, s["scores"]) for s in (now, before)]
    assert score_ks(now, before)[0] == pytest.approx(ks_2samp(*samples).statistic)


@pytest.mark.parametrize("freedom", [1, 2, 9, 40, 400])
def test_chi_square_quantile(freedom):
    exact = chi2.isf(1e-5, freedom)
    assert 0.995 * exact < _chi_square(freedom) < 1.12 * exact


def test_rare_neighbours_share_a_cell():
    assert _cells(np.array([19.0, 5, 3, 4, 18, 1, 1])).tolist() == [0, 1, 1, 1, 2, 3, 3]


def test_too_few_rows_and_no_history():
    camera = Camera(5)
    few, many = camera.night(150, 1), camera.night(500, 2)
    assert judge(few, [many], CONFIG)["verdict"] == "too few rows"
    assert judge(many, [], CONFIG)["verdict"] == judge(many, [few], CONFIG)["verdict"] == "no history"
    empty = add_stats([])
    assert judge(many, [empty, few, few, empty], CONFIG)["reference"] == {"runs": 2, "rows": 300}


def test_only_the_last_runs_are_the_reference():
    camera = Camera(10)
    old = [camera.night(500, seed, shares=camera.shares[::-1]) for seed in range(10)]
    recent = [camera.night(500, seed) for seed in range(20, 23)]
    config = DriftConfig(history=3)
    assert judge(camera.night(500, 99), old + recent, config)["verdict"] == "ok"
    assert judge(camera.night(500, 99), old + recent, CONFIG)["verdict"] == "drift"


def test_a_night_of_errors_only_and_outputs_without_embeddings():
    camera = Camera(5)
    found = judge(camera.night(300, 1, bad=1.0), [camera.night(300, 0)], CONFIG)
    assert found["breaches"] == ["error_rate"]
    bare = [camera.night(300, seed) | {"embedding": None, "norm": None, "divergence": None} for seed in (1, 2)]
    names = [check["name"] for check in judge(bare[0], bare[1:], CONFIG)["checks"]]
    assert names == ["label_psi", "label_js", "score_ks", "error_rate"]


def test_a_run_is_held_against_the_runs_before_it(tmp_path):
    output, camera = Output(OutputConfig(path=str(tmp_path))), Camera(10)
    assert drift_of(output, "20261101T020000.00Z", camera.night(500, 0), CONFIG)["verdict"] == "no history"
    for night in range(1, 6):
        record = {"rows": 500, "stats": camera.night(500, night)} if night != 3 else {"rows": 0, "stats": add_stats([])}
        output.write_json(f"runs/2026110{night}T020000.00Z.json", record)
    found = drift_of(output, "20261106T020000.00Z", camera.night(500, 9), CONFIG)
    assert found["verdict"] == "ok" and found["reference"] == {"runs": 4, "rows": 2000}
    assert drift_of(output, "20261103T020000.00Z", camera.night(500, 9), CONFIG)["reference"]["runs"] == 2
    shifted = drift_of(output, "20261106T020000.00Z", camera.night(500, 9, score=(3, 3)), CONFIG)
    assert shifted["breaches"] == ["score_ks"]
    assert drift_of(output, "20261106T020000.00Z", add_stats([]), CONFIG) is None


def test_parts_of_a_night_are_neither_judged_nor_a_reference(tmp_path):
    """Class after class: what one run labels until it is interrupted is not like what the next one finds left."""
    output, camera = Output(OutputConfig(path=str(tmp_path))), Camera(4)
    first, second = (camera.night(300, seed, shares=shares) for seed, shares in ((1, [0.5, 0.5, 0, 0]), (2, [0, 0, 0.5, 0.5])))
    cut_off = {"state": "interrupted", "started": "2026-11-01T02:00:00.000+00:00", "rows": 300, "stats": first}
    output.write_json("runs/20261101T020000.00Z.json", cut_off)
    found = drift_of(output, "20261101T030000.00Z", second, CONFIG, [cut_off])
    assert found["verdict"] == PART and not found["breaches"] and "2026-11-01T02:00 left" in found["why"]
    output.write_json("runs/20261101T030000.00Z.json", {"state": "done", "rows": 300, "stats": second, "drift": found})
    assert drift_of(output, "20261102T020000.00Z", camera.night(300, 3), CONFIG)["verdict"] == "no history"
    whole = {"state": "done", "rows": 600, "stats": add_stats([first, second]), "drift": None}
    output.write_json("runs/20261102T020000.00Z.json", whole)
    now = add_stats([camera.night(300, 4, shares=[0.25] * 4)])
    found = drift_of(output, "20261103T020000.00Z", now, CONFIG, [cut_off | {"rows": 0}])  # cut off before its first row
    assert found["verdict"] == "ok" and found["reference"] == {"runs": 1, "rows": 600}


def test_a_check_that_sampling_alone_may_exceed_is_not_made():
    """Embeddings that point everywhere: their mean over a few hundred is chance, and 1.76 of at most 2 would be allowed."""
    camera = Camera(10)
    camera.centres -= camera.centres.mean(0)
    nights = [camera.night(220, seed, shares=[0.1] * 10) for seed in range(2)]
    now, before = (night | {"embedding": [one * 0.05 for one in night["embedding"]]} for night in nights)
    check = next(c for c in judge(now, [before], CONFIG)["checks"] if c["name"] == "embedding_cosine")
    assert check["allowed"] >= 1 and not check["judged"] and not check["breach"]
    assert all(c["judged"] for c in judge(now, [before], CONFIG)["checks"] if c is not check and c["name"] != check["name"])
