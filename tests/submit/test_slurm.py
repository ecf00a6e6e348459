"""The script for sbatch: run as Slurm runs it, on two nodes on this machine that have networks and processes of their own."""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from pipelines.cli import main
from tests.support import ROOT, SUPPORT
from tests.support.jobs import LONG, chunk_files, output_rows, wait_for

NODES = SUPPORT / "slurm_nodes.sh"


def script(capsys, *arguments: str) -> str:
    assert main(["manifest", "configs/demo.yaml", "--kind=slurm", "--set=output.shared=true", *arguments]) == 0
    return capsys.readouterr().out


def directives(text: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_script_asks_for_what_it_is_told_and_is_one_that_bash_reads(capsys):
    text = script(capsys, "--gpus=2", "--cpus=16", "--memory=64Gi", "--workers", "0", "3", "--deadline=5400", "--name=my-job")
    asked = directives(text)
    assert text.startswith("#!/bin/bash\n#SBATCH ") and asked["signal"] == "B:TERM@120"
    assert (asked["nodes"], asked["gpus-per-node"], asked["cpus-per-task"], asked["mem"]) == ("3", "2", "16", "64G")
    assert (asked["time"], asked["job-name"], asked["ntasks-per-node"]) == ("90", "my-job", "1")
    assert "--num-cpus=16 --num-gpus=2" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_nightly_and_overrides_are_what_the_program_takes(capsys):
    text = script(capsys, "--nightly", "--fail-on-drift", "--set=output.path=out/it's $HOME")
    assert "pipelines.cli nightly " in text and " --fail-on-drift " in text and "gpus-per-node" not in text
    assert """'--set=output.path=out/it'"'"'s $HOME'""" in text


def test_local_path_that_the_nodes_may_not_have_is_refused(capsys):
    assert main(["manifest", "configs/demo.yaml", "--kind=slurm"]) == 2
    assert "say output.shared=true" in capsys.readouterr().err


@pytest.fixture
def slurm(monkeypatch):
    """Starts a script as sbatch would; what it starts ends with the test."""
    own = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "true"]
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))) or subprocess.run(own, capture_output=True).returncode:
        pytest.skip("no namespaces of one's own on this machine")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # After so long the other nodes end, when the head is gone; Ray's default is 60. On the head `ray stop` must be ready by then.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "25")
    started = []

    def start(text: str) -> subprocess.Popen[str]:
        folder = Path(tempfile.mkdtemp(prefix="lbslurm"))
        (folder / "job.sh").write_text(text)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append((subprocess.Popen([NODES, folder, folder / "job.sh"], start_new_session=True, **pipes), folder))
        return started[-1][0]

    yield start
    for process, folder in started:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
    shutil.rmtree("/tmp/ray-1", ignore_errors=True)


def test_two_nodes_label_until_the_time_is_up_and_the_next_submission_goes_on(capsys, slurm, tmp_path):
    text = script(capsys, f"--set=output.path={tmp_path}", "--set=compute.chunk_rows=4", "--set=source.limit=400",
                  "--cpus=1", "--workers", "0", "2")  # fmt: skip
    assert sys.executable in text
    first = slurm(text)
    wait_for(lambda: len(chunk_files(tmp_path)) >= 3 or first.poll() is not None, LONG)
    assert first.poll() is None, first.communicate()
    psutil.Process(first.pid).children()[0].send_signal(signal.SIGTERM)  # what is below `unshare`: it has the trap
    said = first.communicate(timeout=LONG)[0]
    assert first.returncode == 130 and "interrupted; what is written stays" in said, said
    before = {path: path.stat().st_mtime_ns for path in chunk_files(tmp_path)}
    assert 3 <= len(before) < 100 and not list(tmp_path.glob("_lock/*.json"))

    second = slurm(text)
    said = second.communicate(timeout=LONG)[0]
    assert second.returncode == 0, said
    assert "--min-nodes" not in said and "On worker node" in said
    assert output_rows(tmp_path).num_rows == 400
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    records = sorted((tmp_path / "runs").glob("*.json"))
    assert len(records) == 2
