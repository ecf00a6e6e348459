"""`levit-batch review`: against scikit-learn and cleanlab on the same numbers, and on planted copies and wrong targets."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cleanlab import Datalab
from cleanlab.filter import find_label_issues
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from levit_batch.errors import OutputError
from levit_batch.results.near import neighbours as module
from levit_batch.results.near.hashes import groups
from levit_batch.results.near.neighbours import neighbours
from levit_batch.results.near.plane import SAMPLE, plane
from levit_batch.results.near.review import review
from levit_batch.results.near.spill import Spilled, best_two
from levit_batch.results.near.suspects import Suspects
from levit_batch.results.near.vectors import unit
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan
from pipelines.cli import main
from tests.support.outputs import make_output
from tests.support.planted import COPIES, KINDS


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["review", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def good(output) -> pa.Table:
    table = pa.concat_tables(scan(output))
    return table.filter(table["error"].is_null())


def reviewed(output) -> pa.Table:
    return pq.read_table(f"{output.place.path}/review.parquet")


def spilled(vectors, top) -> Spilled:
    zeros = np.zeros(len(vectors), np.int32)
    return Spilled(vectors, ["s"], ["v"], zeros, zeros, np.arange(len(vectors)), np.asarray(top, np.int32))


@pytest.fixture(scope="module")
def found(digits):
    """What `review` says of the digits, and its table."""
    return review(digits.output), reviewed(digits.output)


@pytest.mark.parametrize("block", [4096, 100])
def test_neighbours_of_one_label_are_scikit_learns(digits, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    vectors = list_matrix(good(digits.output)["embedding"])
    distances, places = neighbours(spilled(vectors, [[0, -1]] * len(vectors)))
    exact = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(vectors.astype(np.float32))
    expected, _ = exact.kneighbors()
    assert np.allclose(distances, expected, atol=1e-6)
    assert not (places == np.arange(len(vectors))[:, None]).any()
    assert all(len(set(row)) == 10 for row in places.tolist())


@pytest.mark.parametrize("block", [4096, 7])
def test_candidates_share_a_label(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 5)).astype(np.float32)
    top = np.stack([random.permutation(6)[:2] for _ in range(60)])
    top[0] = 6, 7  # alone
    distances, places = neighbours(spilled(vectors, top), k=4)
    length = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = 1 - length @ length.T
    expected[~(top[:, None, :, None] == top[None, :, None, :]).any((2, 3)) | np.eye(60, dtype=bool)] = np.inf
    assert np.allclose(distances, np.sort(expected, 1)[:, :4], atol=1e-6)
    assert (places[1:] == np.argsort(expected, 1)[1:, :4]).all() and (places[0] == -1).all()


def test_groups():
    first, second = np.array([5, 1, 7, 3]), np.array([1, 7, 8, 3])
    assert groups(first, second, 9).tolist() == [0, 1, 2, 3, 4, 1, 6, 1, 1]


def test_copies_and_outliers_are_cleanlabs(monkeypatch, tmp_path, digits):
    table, vectors = good(digits.output), list_matrix(good(digits.output)["embedding"]).astype(np.float32)

    def everywhere(rows):  # every row is a candidate
        return np.tile(np.array([[0, -1]], np.int32), (rows.num_rows, 1))

    monkeypatch.setattr("levit_batch.results.near.spill.best_two", everywhere)
    monkeypatch.setattr("levit_batch.results.near.review.OURS", ("shard", "row", "top_labels"))  # by embeddings alone
    said = review(digits.output)
    ours = reviewed(digits.output)
    lab = Datalab({"label": table["target"].to_numpy()}, label_name="label", verbosity=0)
    lab.find_issues(features=vectors, issue_types={"near_duplicate": {"metric": "cosine"}, "outlier": {"metric": "cosine"}})
    outliers, copies = lab.get_issues("outlier"), lab.get_issues("near_duplicate")
    assert ours["outlier"].to_pylist() == outliers["is_outlier_issue"].tolist()
    assert said["outliers"] == outliers["is_outlier_issue"].sum() > 20
    assert [group is not None for group in ours["copies"].to_pylist()] == copies["is_near_duplicate_issue"].tolist()


def test_wrong_targets_are_cleanlabs(digits, found):
    said, ours = found
    table = good(digits.output)
    probabilities = np.zeros((table.num_rows, 10))
    np.put_along_axis(probabilities, list_matrix(table["top_labels"]), list_matrix(table["top_scores"]), 1)
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = find_label_issues(table["target"].to_numpy(), probabilities, filter_by="confident_learning")
    assert [label is not None for label in ours["suspected_label"].to_pylist()] == expected.tolist()
    given = probabilities[np.arange(len(probabilities)), table["target"].to_numpy()]
    assert np.allclose(ours["label_quality"].to_numpy(), given, atol=1e-6)
    assert said["suspected_labels"] == expected.sum() and said["labels_by"] == "target"


@pytest.mark.parametrize("seed", range(3))
def test_unsure_models_are_judged_as_cleanlab_judges_them(seed):
    """Classes of unequal size and scores: confident of several classes, of none, or of another than the likeliest."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([2, 1, 0.5, 0.3], 400)
    target = np.array([random.choice(4, p=row) for row in probabilities])
    top = np.argsort(-probabilities, 1)
    scores = np.take_along_axis(probabilities, top, 1)
    lists = [pa.FixedSizeListArray.from_arrays(pa.array(each.reshape(-1)), 4) for each in (top, scores)]
    rows = pa.table({"target": target, "label": top[:, 0], "top_labels": lists[0], "top_scores": lists[1]})
    suspects = Suspects(rows.schema, 4)
    suspects.learn(rows)
    expected = find_label_issues(target, probabilities, filter_by="confident_learning")
    assert (suspects.judge(rows)[1] >= 0).tolist() == expected.tolist() and 0 < expected.sum() < 400


def test_a_target_that_is_not_among_the_stored_labels_has_a_share_of_the_rest(tmp_path):
    made = make_output(tmp_path, top_k=2, accuracy=0.3)
    review(made.output)
    pairs = list(zip(good(made.output).to_pylist(), reviewed(made.output)["label_quality"].to_pylist(), strict=True))
    unseen = [(row, quality) for row, quality in pairs if row["target"] not in (None, *row["top_labels"])]
    assert unseen and all(quality == pytest.approx((1 - sum(row["top_scores"])) / 2) for row, quality in unseen)


def test_a_table_of_one_label_a_row_has_no_second(tmp_path):
    table = good(make_output(tmp_path, top_k=1).output)
    assert best_two(table).tolist() == [[label, -1] for label in table["label"].to_pylist()]


def test_the_map_is_scikit_learns(digits, found):
    vectors = list_matrix(good(digits.output)["embedding"]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = PCA(2, svd_solver="full").fit_transform(vectors)
    assert np.allclose(np.stack([found[1]["x"], found[1]["y"]], 1), expected, atol=1e-4)
    assert found[1]["label"].equals(good(digits.output)["label"])


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (3, 2), (30_000, 3)])
def test_maps_of_few_and_of_many(shape):
    vectors = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 9
    made = plane(vectors := vectors.astype(np.float16))
    assert made.shape == (shape[0], 2) and np.isfinite(made).all()
    if shape[0] > SAMPLE:
        expected = PCA(2).fit_transform(unit(vectors))
        assert np.abs(np.corrcoef(made.T, expected.T)[:2, 2:]).diagonal().min() > 0.999


def test_planted_wrong_targets(digits, found):
    rows = found[1].filter(found[1]["suspected_label"].is_valid()).to_pylist()
    suspected = {(row["shard"], row["row"]) for row in rows}
    recall, precision = len(suspected & digits.wrong) / len(digits.wrong), len(suspected & digits.wrong) / len(suspected)
    print(f"wrong targets: recall {recall:.3f}, precision {precision:.3f} of {len(suspected)}")
    assert recall >= 0.8 and precision >= 0.8


def found_copies(digits, table) -> tuple[dict[str, float], float]:
    """Of each kind, the share of copies that are in one group with what they are copies of; and of all that are grouped, the
    share of those planted."""
    group = {(r["shard"], r["row"]): r["copies"] for r in table.to_pylist() if r["copies"] is not None}
    hits = {kind: [] for kind in KINDS}
    for row, (kind, original) in enumerate(digits.copies):
        hits[kind].append(group.get((COPIES, row), -1) == group.get(original, -2))
    planted = {(COPIES, row) for row in range(len(digits.copies))} | {original for _, original in digits.copies}
    return {kind: np.mean(each) for kind, each in hits.items()}, len(planted & set(group)) / len(group)


def test_planted_copies(digits, found):
    kinds, precision = found_copies(digits, found[1])
    print(kinds, f"precision {precision:.3f}")
    assert found[0]["by_hashes"] and precision >= 0.8
    assert min(kinds["re-encoded"], kinds["resized"], kinds["mirrored"]) >= 0.8


def test_without_hashes_mirrored_copies_are_not_found(digits, monkeypatch):
    monkeypatch.setattr("levit_batch.results.near.review.OURS", ("shard", "row", "top_labels"))
    said = review(digits.output)
    kinds, precision = found_copies(digits, reviewed(digits.output))
    print(kinds, f"precision {precision:.3f}")
    assert not said["by_hashes"] and precision >= 0.8 and kinds["re-encoded"] >= 0.8 and kinds["mirrored"] == 0


def test_the_table_names_rows_of_the_output(digits, found):
    said, ours = found
    table = good(digits.output)
    assert ours.select(["shard", "row"]).to_pylist() == table.select(["shard", "row"]).to_pylist()
    assert said["rows"] == 972 and said["alone"] == 0
    where = list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))
    vectors = list_matrix(table["embedding"]).astype(np.float32)
    for row in ours.to_pylist()[::97]:
        one, other = (vectors[where.index(at)] for at in ((row["shard"], row["row"]), (row["nearest_shard"], row["nearest_row"])))
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert row["nearest_distance"] == pytest.approx(1 - cosine, abs=1e-5)


def test_the_command_and_its_page(digits, tmp_path, capsys):
    code, out, _ = run(capsys, digits.path, "--json", "--html", str(tmp_path / "page.html"))
    answer = json.loads(out)
    shown = answer["examples"]
    assert code == 0 and answer["table"].endswith("/review.parquet") and answer["copy_groups"] >= len(shown["copies"]) > 1
    assert all(len(group) > 1 for group in shown["copies"])
    assert shown["labels"][0][0]["suspected_name"] != shown["labels"][0][0]["target_name"]
    page = (tmp_path / "page.html").read_text()
    assert "Map of 972 rows by label" in page and page.count("<use ") >= 972
    assert "Copies 1" in page and page.count("data:image/jpeg") >= 20
    code, out, _ = run(capsys, digits.path)
    assert code == 0 and "suspected labels: targets, by confident learning" in out and "Outliers, the farthest first" in out


def test_without_a_target_the_heads_are_asked(tmp_path):
    made = make_output(tmp_path, target=None, per_head=True)
    said, ours, table = review(made.output), reviewed(made.output), good(made.output)
    apart = [a != b for a, b in zip(table["head_label"].to_pylist(), table["distill_label"].to_pylist(), strict=True)]
    assert said["labels_by"] == "heads" and said["rows"] == 118
    assert [label is not None for label in ours["suspected_label"].to_pylist()] == apart and any(apart)
    heads = table.select(["head_label", "distill_label", "label"]).to_pylist()
    other = [row["distill_label" if row["head_label"] == row["label"] else "head_label"] for row in heads]
    assert ours["suspected_label"].to_pylist() == [label if differ else None for label, differ in zip(other, apart, strict=True)]


@pytest.mark.parametrize("changes", [{"target": "list"}, {"target": None, "top_k": 1, "embeddings": "float32"}])
def test_with_neither_no_label_is_suspected(tmp_path, changes, capsys):
    made = make_output(tmp_path, **changes)
    code, out, _ = run(capsys, str(made.path))
    assert code == 0 and "no labels are suspected" in out
    assert reviewed(made.output)["suspected_label"].null_count == 118


def test_it_is_refused_without_embeddings_and_deleted_with_the_rest(tmp_path, capsys):
    code, _, err = run(capsys, str(make_output(tmp_path, name="bare", embeddings="none").path))
    assert code == 2 and "has no embeddings" in err and len(err.splitlines()) == 1
    made = make_output(tmp_path)
    review(made.output)
    assert any(file.path.endswith("review.parquet") for file in made.output.own_files())


def test_in_a_store(tmp_path, s3, capsys):
    """All three read and write where the output is."""
    made = make_output(tmp_path, shards=2, target=None)
    url = s3.put(made.path, "near")
    for words in (["search", url, "part-01.parquet:4"], ["review", url], ["select", url, "-n", "3", "--by", "outlier"]):
        assert main([*words, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer.get("rows", 78) and answer.get("compared", 77) == 77


def test_a_row_that_is_alone(tmp_path):
    made = make_output(tmp_path, shards=1, rows=1, bad=0)
    said = review(made.output)
    assert said["rows"] == said["alone"] == 1 and said["outliers"] == said["copies"] == 0
    assert reviewed(made.output).select(["copies", "nearest_row", "distance", "outlier"]).to_pylist() == [
        {"copies": None, "nearest_row": None, "distance": None, "outlier": False}
    ]
    with pytest.raises(OutputError, match="no row has an embedding"):
        review(make_output(tmp_path / "bad", shards=1, rows=2, bad=2).output)
