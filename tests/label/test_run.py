"""The main job as its users run it. Labels are compared with what the parts answer alone.

Jobs of few chunks go without Ray; what kills processes is tried with both engines.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from levit_batch.inference.fold import fold
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.table.output import folder_of
from pipelines.cluster.local import alive
from pipelines.label.execute import REFUSALS
from tests.support import DIGITS, ROOT, SUPPORT
from tests.support.deadly_image import deadly
from tests.support.jobs import LONG, Job, kill_all, replicas, wait_for
from tests.support.out_of_memory import starved

ROWS, BAD = 899, 7
both_engines = pytest.mark.parametrize("engine", ["ray", "local"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, checkpoint):
    """A finished job, and what the command said."""
    job = Job(tmp_path_factory.mktemp("undisturbed"), checkpoint)
    return job, job.run()


@pytest.fixture(scope="module")
def expected(undisturbed):
    return undisturbed[0].table()


def same_rows(table, expected):
    """Row for row the same, with scores and embeddings equal up to the order of additions."""
    close = ("score", "top_scores", "embedding")
    assert table.drop_columns(list(close)).equals(expected.drop_columns(list(close)))
    for name in close:
        one, other = (t[name].combine_chunks() for t in (table, expected))
        one, other = (
            (a.flatten() if pa.types.is_fixed_size_list(a.type) else a).to_numpy(zero_copy_only=False)
            for a in (one, other)
        )
        assert np.allclose(one.astype(np.float32), other.astype(np.float32), atol=2e-3, equal_nan=True)


def test_every_row_is_in_its_place(undisturbed, expected):
    job, said = undisturbed
    assert said.returncode == 0, said.stderr
    assert expected.num_rows == ROWS and len(job.chunks()) == 16 and job.leftovers() == []
    source = {path.name: pq.read_table(path) for path in DIGITS.glob("*.parquet")}
    assert set(expected["shard"].to_pylist()) == set(source)
    for shard, table in source.items():
        rows = expected.filter(pc.equal(expected["shard"], shard))
        assert rows["row"].to_pylist() == list(range(table.num_rows))
        assert rows["target"].to_pylist() == table["label"].to_pylist()


def test_labels_are_those_of_the_model_alone(expected, checkpoint):
    loaded = load_checkpoint(str(checkpoint))
    model, preprocess = fold(loaded.model, "average", loaded.processor), Preprocessor(loaded.processor)
    source = pa.concat_tables(pq.read_table(path) for path in sorted(DIGITS.glob("*.parquet")))
    pixels, errors = preprocess(pc.struct_field(source["image"].combine_chunks(), "bytes").to_pylist())
    import torch

    embedding, logits = model(torch.from_numpy(pixels))
    good = np.array([error is None for error in errors])
    assert expected["error"].is_null().to_numpy().tolist() == good.tolist() and (~good).sum() == BAD
    rows = expected.filter(pa.array(good))
    assert (rows["label"].to_numpy() == logits.argmax(1).numpy()[good]).mean() > 0.999
    assert np.allclose(rows["score"].to_numpy(), logits.softmax(1).max(1).values.numpy()[good], atol=1e-4)
    stored = np.stack(rows["embedding"].to_numpy(zero_copy_only=False))
    assert np.allclose(stored, embedding.numpy()[good], atol=2e-2, rtol=2e-3)
    assert len(set(rows["label"].to_pylist())) > 3, "the model tells images apart"


def test_the_record_says_what_happened(undisturbed):
    job, said = undisturbed
    (file,) = job.runs()
    record, metrics = json.loads(file.read_text()), json.loads((job.output / "metrics.json").read_text())
    assert (record["state"], record["rows"], record["chunks"], sum(record["errors"].values())) == (
        "done with errors",
        ROWS,
        16,
        BAD,
    )
    assert metrics["rows"] == ROWS and metrics["errors"] == record["errors"]
    assert set(record["stages"]) == {"read", "decode", "load", "predict", "write"} and record["images_per_second"] > 0
    assert record["engine"] == "local" and record["peak_memory"] > 100e6 and record["stats"]["rows"] == ROWS
    assert json.loads((job.output / "job.json").read_text())["class_names"] == [f"LABEL_{i}" for i in range(10)]
    assert (job.output / "report.html").stat().st_size > 10_000
    assert "labelled 899 rows" in said.stdout and "100%" in said.stderr
    assert "without Ray: 16 chunks in 2 processes here" in said.stderr


def test_running_again_does_nothing_new(undisturbed):
    job, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in job.chunks()}
    said = job.run("run", "--json")
    assert json.loads(said.stdout)["run"]["state"] == "nothing new" and said.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in job.chunks()} == before
    planned = json.loads(job.run("plan", "--json").stdout)
    assert (planned["rows"], planned["done"]["rows"], planned["pending"]["rows"]) == (ROWS, ROWS, 0)


def test_a_run_killed_before_it_measured_is_measured_by_the_next(undisturbed):
    job, _ = undisturbed
    measured = json.loads((job.output / "metrics.json").read_text())
    (job.output / "metrics.json").write_text(json.dumps(measured | {"rows": 1}))
    (job.output / "_unmeasured").touch()
    assert json.loads(job.run("run", "--json").stdout)["metrics"] == measured
    assert json.loads((job.output / "metrics.json").read_text()) == measured and job.leftovers() == []


def test_another_job_is_refused(undisturbed):
    job, _ = undisturbed
    said = job.run("run", "--set", "predict.top_k=2", "--set", "model.heads=class")
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    assert "predict.top_k: 3 there, 2 now" in said.stderr and 'model.heads: "average" there, "class" now' in said.stderr


def test_overwrite_starts_afresh_and_leaves_the_users_files(tmp_path, checkpoint):
    job = Job(tmp_path, checkpoint, source={"limit": 100})
    assert job.run("run", "--set", "predict.top_k=2").returncode in (0, 3)
    (job.output / "data/mine.csv").write_text("mine")
    said = job.run("run", "--overwrite", "--set", "predict.top_k=4")
    assert said.returncode in (0, 3), said.stderr
    table = job.table()
    assert table.num_rows == 100 and table.schema.field("top_labels").type.list_size == 4
    assert (job.output / "data/mine.csv").read_text() == "mine" and len(job.runs()) == 1


@both_engines
def test_killed_at_random_moments_and_resumed(tmp_path, checkpoint, expected, engine):
    """The driver alone, then the driver with all that it started, at random places; then to the end."""
    rng = random.Random(os.environ.get("PYTEST_SEED"))
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 16, "engine": engine})
    for everything in (False, True, True):
        target, process = len(job.chunks()) + rng.randrange(1, 12), job.start()
        job.wait_for_chunks(target, process)
        if everything:
            kill_all(process)
        else:
            family = replicas(process)  # the rest of Ray takes a minute to see that its head is gone, and writes nothing
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)
            wait_for(lambda family=family: not any(map(alive, family)))
    interrupted = len(job.chunks())
    assert 3 <= interrupted < 60
    said = job.run()
    assert said.returncode == 0, said.stderr
    record = json.loads(job.runs()[-1].read_text())
    assert record["skipped"]["chunks"] >= interrupted - 2 and record["skipped"]["chunks"] + record["chunks"] == len(
        job.chunks()
    )
    same_rows(job.table(), expected)
    assert job.leftovers() == []


@both_engines
def test_a_replica_that_dies_does_not_stop_the_job(tmp_path, checkpoint, expected, engine):
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 2, "engine": engine})
    process = job.start()
    victims = wait_for(lambda: len(job.chunks()) >= 1 and replicas(process))
    assert Path(f"/proc/{victims[0].pid}/oom_score_adj").read_text() == "1000\n", "memory that runs out ends a replica"
    victims[0].kill()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    same_rows(job.table(), expected)
    assert job.leftovers() == []


@pytest.mark.parametrize(
    ("command", "number", "engine"),
    [("run", signal.SIGINT, "ray"), ("nightly", signal.SIGTERM, "ray"), ("run", signal.SIGINT, "local")],
)
def test_interrupting_says_how_to_go_on(tmp_path, checkpoint, command, number, engine):
    """As a person does it, and as a scheduler does."""
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 8, "engine": engine}, notify=told_in(tmp_path))
    process = job.start(command)
    job.wait_for_chunks(2, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130 and err.splitlines()[-1].endswith(f"levit-batch {command} {job.file}")
    assert "Traceback" not in err and len(err.splitlines()) <= (5 if engine == "local" else 4)
    assert [json.loads(path.read_text())["state"] for path in job.runs()] == ["interrupted"]
    assert not (job.output / "_lock").exists()
    if command == "nightly":
        told = json.loads((tmp_path / "told").read_text())
        assert (told["state"], told["exit_code"], told["events"]) == ("interrupted", 130, ["failure"])


@both_engines
def test_a_replica_that_the_kernel_kills_for_memory_does_not_stop_the_job(tmp_path, checkpoint, expected, engine):
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 2, "engine": engine})
    process = job.start("run", "--json")
    victims = wait_for(lambda: len(job.chunks()) >= 1 and replicas(process))
    with starved(victims[0].pid) as victim:
        if victim is None:
            kill_all(process)
            pytest.skip("no leave to make a control group")
        wait_for(victim.killed)
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert json.loads(out)["metrics"]["rows"] == ROWS, "what Ray has to say of it goes to standard error"
    same_rows(job.table(), expected)
    assert job.leftovers() == []


@both_engines
def test_a_signal_to_the_whole_family_ends_the_job_not_its_replicas_first(tmp_path, checkpoint, expected, engine):
    """As `timeout`, Slurm's scancel, systemd's control-group and a terminal that is closed do it: Ray's processes get it, too."""
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 8, "engine": engine})
    process = job.start()
    job.wait_for_chunks(2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGTERM)
    time.sleep(1)  # in which those that heard it would end, and the driver see it
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130 and "Traceback" not in err
    assert [json.loads(path.read_text())["state"] for path in job.runs()] == ["interrupted"]
    assert not (job.output / "_lock").exists() and not any(map(alive, family)), "a replica outlived the job"
    assert job.run().returncode == 0
    same_rows(job.table(), expected)


@both_engines
def test_a_signal_at_the_start_is_told_and_those_after_it_break_nothing_off(tmp_path, checkpoint, engine):
    job = Job(tmp_path, checkpoint, notify=told_in(tmp_path), compute={"engine": engine})
    root = Path(tempfile.mkdtemp(prefix="lb"))  # a short path: Ray's sockets lie below it
    process = job.start("nightly", env={"RAY_TMPDIR": str(root)})
    wait_for(lambda: psutil.Process(process.pid).children() or process.poll() is not None)
    for _ in range(6):  # not to the end: when Ray's C++ ends it leaves SIGTERM to the system for some milliseconds
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130 and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert json.loads((tmp_path / "told").read_text())["state"] == "interrupted"
    assert not (job.output / "_lock").exists() and job.chunks() == []
    left = [folder for folder in root.glob("ray/session_*") if not folder.is_symlink()]
    shutil.rmtree(root)
    assert left == [], "the folder of the Ray that had just started"


def told_in(folder):
    """`notify`: the message into a file."""
    return {"command": ["sh", "-c", f"cat > {folder}/told"]}


def test_an_output_that_takes_nothing_stops_the_job_early(tmp_path, checkpoint):
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 10, "replicas": 1, "engine": "local"})
    (job.output / "data").mkdir(parents=True)
    in_the_way = [job.output / "data" / folder_of(path.name) for path in DIGITS.glob("*.parquet")]
    for path in in_the_way:
        path.write_text("a file where a folder is wanted")
    said = job.run()
    assert said.returncode == 2 and "Traceback" not in said.stderr
    last = said.stderr.splitlines()[-1]
    assert last.startswith(f"levit-batch: output.path: {job.output} cannot be written: ")
    assert last.endswith("mend that, and the same command goes on")
    record = json.loads(job.runs()[0].read_text())
    assert record["state"] == "failed" and len(record["failed"]) == REFUSALS - 1, "not each chunk, three times"
    for path in in_the_way:
        path.unlink()
    assert job.run().returncode == 0 and job.table().num_rows == ROWS and job.leftovers() == []


@both_engines
def test_images_that_kill_cost_only_their_own_rows(tmp_path, checkpoint, engine):
    """A segfault, a hang that holds Python's lock, a process that ends itself, memory without end."""
    source = pq.read_table(DIGITS / "digits-00000-of-00004.parquet").slice(0, 60)
    images = source["image"].to_pylist()
    deeds = {5: "segfault", 20: "hang", 33: "exit", 47: "memory"}
    for row, deed in deeds.items():
        images[row] = {"bytes": deadly(deed), "path": None}
    image = pa.array(images, source.schema.field("image").type)
    (tmp_path / "data").mkdir()
    pq.write_table(
        source.set_column(source.schema.get_field_index("image"), "image", image), tmp_path / "data/x.parquet"
    )
    job = Job(
        tmp_path,
        checkpoint,
        source={"path": str(tmp_path / "data"), "decode_timeout": 3},
        compute={"chunk_rows": 30, "replicas": 1, "engine": engine},
        output={"max_error_rate": 1.0},
    )
    said = job.run("run", env={"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{SUPPORT.parent.parent}:{SUPPORT}"})
    assert said.returncode == 0, said.stderr
    errors = {row: error for row, error in enumerate(job.table()["error"].to_pylist()) if error}
    bad = {row for row, image in enumerate(images) if row not in deeds and not good(image["bytes"])}
    assert set(errors) == set(deeds) | bad
    assert [errors[row].split(":")[0] for row in (5, 20, 33)] == ["crashed", "timeout", "crashed"]
    assert json.loads(job.runs()[0].read_text())["begun_again"] == 2 and "chunks begun again: 2; " in said.stdout
    assert job.leftovers() == []


@pytest.mark.parametrize("apart", [{"decode_cpus": 1}, {"engine": "local"}])
def test_a_chunk_that_kills_whoever_writes_it_is_given_up(tmp_path, checkpoint, apart):
    """Its images are decoded by then: with decoding apart, Ray would hand them to one replica after the other for ever."""
    (tmp_path / "data").mkdir()
    source = pq.read_table(DIGITS / "digits-00000-of-00004.parquet").slice(0, 40)
    deeds = pa.array(["write" if row == 12 else "" for row in range(40)])
    pq.write_table(source.append_column("deed", deeds), tmp_path / "data/x.parquet")
    job = Job(
        tmp_path,
        checkpoint,
        source={"path": str(tmp_path / "data"), "keep_columns": ["deed"]},
        compute={"chunk_rows": 10, "replicas": 1} | apart,
        output={"max_error_rate": 1.0},
    )
    said = job.run("run", env={"PYTHONPATH": f"{ROOT}:{SUPPORT}", "DEADLY_WRITE": "write"})
    assert said.returncode == 1 and "Traceback" not in said.stderr
    assert "1 of 4 chunks failed" in said.stderr and "x.parquet rows 10-19: its replica died 5 times" in said.stderr
    assert job.table()["row"].to_pylist() == [*range(10), *range(20, 40)] and job.leftovers() == ["_unmeasured"]
    assert json.loads(job.runs()[0].read_text())["state"] == "failed"
    assert job.run().returncode == 0 and job.table().num_rows == 40 and job.leftovers() == []


def good(data):
    return bool(data) and data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")


def test_a_folder_that_grows_and_changes(tmp_path, checkpoint, expected):
    """New shards are labelled, a changed one replaces its rows, one that went keeps them; the rest is not touched."""
    data = tmp_path / "data"
    data.mkdir()
    one, two, three = sorted(DIGITS.glob("*.parquet"))[:3]
    shutil.copy(one, data), shutil.copy(two, data)
    job = Job(tmp_path, checkpoint, source={"path": str(data)})
    assert job.run().returncode == 0
    untouched = {path: path.stat().st_mtime_ns for path in job.chunks() if one.name in str(path)}
    shutil.copy(three, data)
    pq.write_table(pq.read_table(two).slice(0, 70), data / two.name)
    said = job.run("run", "--json")
    record = json.loads(said.stdout)["run"]
    assert record["shards"]["new"]["names"] == [three.name] and record["shards"]["changed"]["names"] == [two.name]
    assert record["rows"] == 70 + pq.read_metadata(three).num_rows
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    table = job.table()
    rows = table.filter(pc.equal(table["shard"], two.name))
    assert rows["row"].to_pylist() == list(range(70))
    same_rows(rows, expected.filter(pc.equal(expected["shard"], two.name)).slice(0, 70))
    (data / one.name).unlink()
    assert json.loads(job.run("run", "--json").stdout)["run"]["shards"]["vanished"]["names"] == [one.name]
    assert job.table().equals(table) and job.leftovers() == []


def test_decoding_apart_from_the_replica_gives_the_same_table(tmp_path, checkpoint, expected):
    """The layout for GPUs, here on CPUs: decode tasks hand whole chunks of pixels to the replica."""
    job = Job(tmp_path, checkpoint, compute={"decode_cpus": 1, "replicas": 1})
    said = job.run()
    assert said.returncode == 0, said.stderr
    same_rows(job.table(), expected)
    assert job.leftovers() == []


def test_limit_retry_errors_and_the_error_rate(tmp_path, checkpoint, expected):
    data = tmp_path / "data"
    data.mkdir()
    broken = pq.read_table(sorted(DIGITS.glob("*.parquet"))[0]).slice(0, 100)
    images = [
        {"bytes": None, "path": f"{i}.png"} if i < 5 else image for i, image in enumerate(broken["image"].to_pylist())
    ]
    image = pa.array(images, broken.schema.field("image").type)
    pq.write_table(broken.set_column(broken.schema.get_field_index("image"), "image", image), data / "x.parquet")
    root = tmp_path / "images"
    root.mkdir()
    job = Job(tmp_path, checkpoint, source={"path": str(data), "root": str(root)}, compute={"chunk_rows": 20})
    said = job.run("run", "--limit", "50")
    assert said.returncode == 3 and "output.max_error_rate=0.01" in said.stdout
    assert job.table().num_rows == 50 and said.stdout.count("missing") == 1
    for i, image in enumerate(broken["image"].to_pylist()[:5]):
        (root / f"{i}.png").write_bytes(image["bytes"] or b"")
    untouched = job.chunks()[1].stat().st_mtime_ns
    retried = json.loads(job.run("run", "--limit", "50", "--retry-errors", "--json").stdout)
    assert retried["run"]["rows"] == 20 and "missing" not in retried["metrics"]["errors"]
    assert job.chunks()[1].stat().st_mtime_ns == untouched
    assert job.run().returncode in (0, 3) and job.table()["row"].to_pylist() == list(range(100))
    assert job.leftovers() == []


def test_a_death_of_ray_ends_the_command_and_the_next_goes_on(tmp_path, checkpoint, expected):
    job = Job(tmp_path, checkpoint, compute={"chunk_rows": 16, "engine": "ray"})
    process = job.start()
    job.wait_for_chunks(3, process)
    for member in psutil.Process(process.pid).children(recursive=True):
        if member.name() == "raylet":
            member.kill()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1 and "Traceback" not in err, err
    for record in job.runs():  # none where Ray was faster, and ended this process in silence
        assert json.loads(record.read_text())["state"] == "failed" and err.strip().endswith("the same command goes on"), err
    time.sleep(1)
    assert job.run().returncode == 0
    same_rows(job.table(), expected)
