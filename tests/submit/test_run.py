"""Real submissions to a real head on this machine, by the command."""

import contextlib
import json
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient

from levit_batch.errors import ConfigError
from levit_batch.job.load import load_config, read_yaml
from pipelines.cli import main
from pipelines.submit.job_env import hand_over
from pipelines.submit.jobs import Jobs
from pipelines.submit.run import wait
from pipelines.submit.ship import ship
from pipelines.submit.token import own_token
from tests.support.jobs import COMMAND, LONG, chunk_files, output_rows, wait_for
from tests.support.ray_head import Head

ROWS = 899
SECRET = "swordfish-7f3a"


@pytest.fixture(scope="module")
def head():
    head = Head()
    yield head
    head.close()


def submit(head: Head, output: Path, *more: str) -> int:
    return main([*arguments(head, output), *more])


def arguments(head: Head, output: Path) -> list[str]:
    settings = [f"--set=output.path={output}", "--set=output.shared=true"]
    return ["submit", "configs/demo.yaml", "--address", head.address, *settings]


def rows(output: Path) -> list[tuple[str, int]]:
    return [(row["shard"], row["row"]) for row in output_rows(output, ["shard", "row"]).to_pylist()]


def assert_whole(output: Path) -> None:
    """Every row is there, and once."""
    found = rows(output)
    assert len(found) == len(set(found)) == ROWS


def test_submission_labels_the_demo_follows_its_logs_and_returns_its_code(head, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("LB_TEST_SECRET", SECRET)
    assert submit(head, tmp_path, "--follow", "--env", "LB_TEST_SECRET", "--name", "first") == 0
    out, err = capfd.readouterr()
    assert "100%  899 of 899 rows" in out and "labelled 899 rows" in out
    assert "first SUCCEEDED, exit code 0" in err
    assert_whole(tmp_path)
    assert main(["status", "first", "--address", head.address, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["status"] == "SUCCEEDED" and said["exit_code"] == 0 and said["output"] == str(tmp_path)
    assert main(["logs", "first", "--address", head.address]) == 0
    assert "labelled 899 rows" in capfd.readouterr().out
    details = Jobs(head.address).find("first")
    assert [Path(uri).suffix for uri in details.runtime_env["py_modules"]] == [".zip"] * 2  # the package went along
    assert SECRET not in str(details)
    assert files_with(SECRET, Path(head.folder), tmp_path) == []


def files_with(text: str, *folders: Path) -> list[Path]:
    """Files that hold `text`, among everything that Ray and the job leave on the node."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        with contextlib.suppress(OSError):
            found += [path] if text.encode() in path.read_bytes() else []
    return found


PROBE = """
import os, ray
import pipelines
ray.init(address="auto", log_to_driver=False)

@ray.remote
def in_worker():
    import pipelines
    return os.environ.get("LB_TEST_SECRET")

print("driver has", os.environ.get("LB_TEST_SECRET")[::-1], "worker has", ray.get(in_worker.remote())[::-1])
"""


def test_variables_reach_the_driver_and_the_workers(head, tmp_path, monkeypatch):
    monkeypatch.setenv("LB_TEST_SECRET", SECRET)
    (tmp_path / "ship").mkdir()
    config = load_config("configs/demo.yaml", ["output.shared=true"])
    runtime_env = ship(config, read_yaml("configs/demo.yaml"), tmp_path / "ship", ["LB_TEST_SECRET"], None, False)
    (tmp_path / "ship" / "probe.py").write_text(PROBE)
    jobs, said = Jobs(head.address), []
    runtime_env["env_vars"] = hand_over(jobs.client, {"LB_TEST_SECRET": SECRET})
    job_id = jobs.client.submit_job(entrypoint="sh start.sh probe.py", runtime_env=runtime_env)
    assert wait(jobs, job_id, said.append).status == "SUCCEEDED", said
    assert f"driver has {SECRET[::-1]} worker has {SECRET[::-1]}" in "".join(said)
    assert SECRET not in str(jobs.client.get_job_info(job_id)) and files_with(SECRET, Path(head.folder)) == []
    (key,) = runtime_env["env_vars"].values()
    assert GcsClient(address=head.gcs).internal_kv_get(key.encode(), None) is None  # the head forgets them with the job


def test_exit_code_of_the_job_is_the_exit_code_of_the_command(head, tmp_path, capfd):
    assert (
        submit(head, tmp_path / "three", "--set=output.max_error_rate=0", "--set=source.limit=16", "--name=three") == 3
    )
    assert "three FAILED, exit code 3" in capfd.readouterr().err
    assert submit(head, tmp_path / "two", "--set=source.image_column=nothing", "--name=two") == 2


def test_running_job_is_refused_shown_stopped_and_goes_on_when_submitted_again(head, tmp_path, capfd):
    address = ["--address", head.address]
    small = ["--name=long", "--set=compute.chunk_rows=4"]
    command = [*COMMAND, *arguments(head, tmp_path), *small]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert any(line.startswith("submitted long") for line in iter(waiting.stderr.readline, ""))
    waiting.send_signal(signal.SIGINT)  # ends the waiting, not the job
    assert "long goes on; levit-batch stop long" in waiting.communicate(timeout=120)[1]
    assert waiting.returncode == 130
    assert submit(head, tmp_path, *small) == 2
    assert "job long is" in capfd.readouterr().err
    wait_for(lambda: len(chunk_files(tmp_path)) >= 2, LONG)
    assert main(["status", *address]) == 0
    assert "long  " in capfd.readouterr().out
    assert main(["stop", "long", *address]) == 0
    assert "long STOPPED" in capfd.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in chunk_files(tmp_path)}
    assert 0 < len(before) < 225
    assert list(tmp_path.glob("_lock/*.json")) == []  # it ended tidily
    assert submit(head, tmp_path, *small) == 0
    assert "long-1 SUCCEEDED" in capfd.readouterr().err
    assert_whole(tmp_path)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())  # nothing was done twice


def test_head_killed_mid_run_and_the_job_submitted_again(tmp_path, capfd):
    small = ["--name=cut", "--set=compute.chunk_rows=4"]
    first = Head()
    try:
        assert submit(first, tmp_path, "--no-wait", *small) == 0
        wait_for(lambda: len(chunk_files(tmp_path)) >= 5, LONG)
        first.kill()
    finally:
        first.close()
    assert 0 < len(rows(tmp_path)) < ROWS
    second = Head()
    try:
        assert submit(second, tmp_path, *small) == 0
    finally:
        second.close()
    assert_whole(tmp_path)


def test_unknown_job_and_missing_cluster_are_one_line(head, capfd):
    assert main(["status", "nobody", "--address", head.address]) == 2
    assert "no job nobody" in capfd.readouterr().err
    assert main(["submit", "configs/demo.yaml", "--address", "http://127.0.0.1:1"]) == 2
    assert "no Ray dashboard answers at http://127.0.0.1:1 (" in capfd.readouterr().err


def test_cluster_that_asks_for_a_token_is_one_line(capfd):
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"Unauthorized: Missing authentication token")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main(["status", "--address", f"http://127.0.0.1:{server.server_port}"]) == 2
        server.shutdown()
    assert "RAY_AUTH_TOKEN" in capfd.readouterr().err


@pytest.fixture
def bare_head(tmp_path, monkeypatch, python_without):
    """As `ray start --head` makes it in an environment that has Ray and none of our packages, for a user who has Ray's token."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("c0ffee" * 8)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    head = Head(python=python_without("safetensors"), home=tmp_path)
    yield head
    head.close()


def test_first_job_on_a_head_that_has_a_token_and_nothing_of_ours(bare_head, tmp_path, capfd):
    """The token is found; what is missing, and three ways out, stand in the last line, which `status` shows, too."""
    assert submit(bare_head, tmp_path / "out", "--name=first") == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("first FAILED, exit code 1: the cluster's Python has no module safetensors: say --pip")
    assert "--image-has-it" in said and "pipelines/Dockerfile" in said
    assert main(["status", "first", "--address", bare_head.address]) == 0
    assert "no module safetensors" in capfd.readouterr().out


def test_token_is_not_sent_to_another_machine(tmp_path, monkeypatch):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("c0ffee")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert [own_token(f"http://{host}:8265") for host in ("localhost", "192.0.2.77", "[::1]")] == ["c0ffee", None, "c0ffee"]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert own_token("http://localhost:8265") is None


def test_path_of_this_machine_is_refused_before_anything_is_sent(head, tmp_path, capfd):
    command = ["submit", "configs/demo.yaml", "--address", head.address, f"--set=output.path={tmp_path / 'out'}"]
    assert main([*command, "--name=local"]) == 2
    assert "source.path: configs/demo/label/*.parquet is a path of this machine" in capfd.readouterr().err
    assert all(job.metadata["name"] != "local" for job in Jobs(head.address).list())


def shipped(tmp_path: Path, text: str, env: list[str]) -> str:
    (tmp_path / "job.yaml").write_text(text)
    config = load_config(str(tmp_path / "job.yaml"))
    (tmp_path / "ship").mkdir()
    ship(config, read_yaml(str(tmp_path / "job.yaml")), tmp_path / "ship", env, None, False)
    return (tmp_path / "ship" / "job.yaml").read_text()


JOB = """
source: {path: "s3://images/${LB_TEST_PART}/*.parquet"}
model: {checkpoint: facebook/levit-128S}
output: {path: "s3://labels/out"}
"""


def test_variables_of_the_configuration_travel_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("LB_TEST_PART", SECRET)
    text = shipped(tmp_path, JOB, ["LB_TEST_PART"])
    assert "${LB_TEST_PART}" in text and SECRET not in text
    assert files_with(SECRET, tmp_path / "ship") == []


@pytest.mark.parametrize("line", ["notify: {webhook: 'https://hooks/x'}", "notify: {command: [x, 'https://a:b@h/x']}"])
def test_secret_in_the_configuration_is_refused_before_it_travels(tmp_path, line):
    with pytest.raises(ConfigError, match=r"notify\.\w+: it holds a secret, .* --env NAME"):
        shipped(tmp_path, JOB.replace("${LB_TEST_PART}", "x") + line, [])


def test_variable_that_the_cluster_will_not_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LB_TEST_PART", "x")
    with pytest.raises(ConfigError, match="add --env LB_TEST_PART"):
        shipped(tmp_path, JOB, [])
    monkeypatch.delenv("LB_TEST_PART")
    with pytest.raises(ConfigError, match="LB_TEST_PART is not set"):
        load_config(str(tmp_path / "job.yaml"))


def test_relative_paths_become_whole_and_the_checkpoint_travels(tmp_path):
    settings = [
        f"output.path={tmp_path / 'out'}",
        "output.shared=true",
        "source.path=[configs/demo/label, 's3://more/x']",
    ]
    (tmp_path / "ship").mkdir()
    values = read_yaml("configs/demo.yaml")
    env = ship(load_config("configs/demo.yaml", settings), values, tmp_path / "ship", [], ["rich"], False)
    assert values["source"]["path"] == [str(Path("configs/demo/label").resolve()), "s3://more/x"]
    assert values["model"]["checkpoint"] == "checkpoint/levit-digits"
    assert (tmp_path / "ship" / "checkpoint" / "levit-digits" / "model.safetensors").exists()
    assert any(item.startswith("torch") for item in env["pip"]) and not any(
        item.startswith("ray") for item in env["pip"]
    )
    assert env["pip"][-1] == "rich"


@pytest.mark.parametrize(
    ("text", "times", "asked"),
    [("No available agent to submit job, please try again later.", 2, 3), ("No available agent", 99, 6), ("broken", 1, 1)],
)
def test_a_head_in_its_first_minute_is_asked_again(text, times, asked):
    """text: what the head says, with status 500, so many `times` before it takes the job."""
    heard = []

    class Starting(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200, json.dumps({"ray_version": ray.__version__}))

        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            late = len(heard) > times
            self.answer(200 if late else 500, json.dumps({"job_id": "x", "submission_id": "x"}) if late else text)

        def answer(self, status, text):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        jobs = Jobs(f"http://127.0.0.1:{server.server_port}")
        with contextlib.nullcontext() if times == 2 else pytest.raises(RuntimeError, match=f"500: {text}"):
            assert jobs.submit(entrypoint="true", submission_id="x") == "x"
        server.shutdown()
    assert [one["submission_id"] for one in heard] == ["x"] * asked
