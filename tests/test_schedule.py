"""What `levit-batch schedule` prints, read by the schedulers' own tools where they are, and installed with --install."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from pipelines.cli import main
from pipelines.schedule import without

CRON = ["--cron", "0 2 * * *", "--timezone", "Europe/Berlin"]
CLOUD = [
    "--set=source.path=hf://datasets/me/images",
    "--set=output.path=s3://labels/out",
    "--image=ghcr.io/me/levit-batch:1",
]


def printed(capsys, *arguments: str) -> str:
    assert main(["schedule", "configs/nightly.yaml", *CRON, *arguments]) == 0
    return capsys.readouterr().out


def units(text: str, folder: Path) -> list[Path]:
    """The unit files of what was printed, written to `folder`."""
    for part in text.split("# levit-batch-nightly.")[1:]:
        kind, _, unit = part.partition("\n")
        (folder / f"levit-batch-nightly.{kind}").write_text(unit)
    return sorted(folder.iterdir())


def test_systemd_accepts_the_units(capsys, tmp_path):
    text = printed(capsys, "--target=systemd", "--set=output.path=out/100% of $it; 'x'", "--fail-on-drift")
    files = units(text, tmp_path)
    assert [file.suffix for file in files] == [".service", ".timer"]
    service, timer = (file.read_text() for file in files)
    assert "OnCalendar=*-*-* 02:00:00 Europe/Berlin\n" in timer and "Persistent=true" in timer
    assert f"WorkingDirectory={Path.cwd()}\n" in service and "SuccessExitStatus=75" in service
    command = next(line for line in service.splitlines() if line.startswith("ExecStart="))
    assert f"nightly {Path('configs/nightly.yaml').resolve()} --wait-for-lock=300 --fail-on-drift" in command
    assert "\"--set=output.path=out/100%% of $$it; 'x'\"" in command
    if shutil.which("systemd-analyze"):
        env = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
        command = ["systemd-analyze", "verify", "--user", *files]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert (done.returncode, "levit-batch" in done.stderr) == (0, False), done.stderr


def test_command_of_every_target_is_one_that_this_program_takes(capsys):
    from pipelines.cli import parser

    service = printed(capsys, "--target=systemd")
    line = next(line for line in service.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    assert Path(words[0]).is_absolute() and os.access(words[0], os.X_OK)
    arguments = parser().parse_args(words[words.index("nightly") :])
    assert (arguments.wait_for_lock, arguments.config) == (300, str(Path("configs/nightly.yaml").resolve()))


def test_cron_line_is_absolute_locked_and_logged(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    text = printed(capsys, "--target=cron", "--set=output.path=out/100%")
    zone, line = text.splitlines()[1:3]
    assert zone == "CRON_TZ=Europe/Berlin" and line.startswith("0 2 * * * flock -n -E 75 ")
    assert "out/100\\%" in line  # cron would end the command at a bare per cent sign
    command = shlex.split(line.removeprefix("0 2 * * * ").replace("\\%", "%"))
    log = tmp_path / "my home" / ".local" / "state" / "levit-batch" / "levit-batch-nightly.log"
    assert command[:6] == ["flock", "-n", "-E", "75", str(log.with_suffix(".lock")), "sh"]
    assert command[7].startswith(f"cd {Path.cwd()} && /") and command[7].endswith(f">> '{log}' 2>&1")


def test_cron_installs_once_beside_what_was_there(capsys, monkeypatch, tmp_path):
    """With a `crontab` that keeps its table in a file, since this must not touch the machine's own."""
    store, program = tmp_path / "table", tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then cat {store}; else cat > {store}; fi\n')
    program.chmod(0o755)
    store.write_text("5 5 * * * mine\n")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    printed(capsys, "--target=cron")
    assert store.read_text() == "5 5 * * * mine\n"  # printing changes nothing
    for _ in range(2):
        assert "installed in the crontab" in printed(capsys, "--target=cron", "--install")
    lines = store.read_text().splitlines()
    assert lines[0] == "5 5 * * * mine" and len(lines) == 5
    assert without(store.read_text(), "levit-batch-nightly") == "5 5 * * * mine\n"


def test_systemd_install_writes_the_units_and_says_when_systemd_does_not_take_them(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    program.chmod(0o755)
    assert "levit-batch-nightly.timer" in printed(capsys, "--target=systemd", "--install")
    folder = tmp_path / "systemd" / "user"
    assert sorted(p.name for p in folder.iterdir()) == ["levit-batch-nightly.service", "levit-batch-nightly.timer"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["--user daemon-reload", "--user enable --now levit-batch-nightly.timer"]
    program.write_text("#!/bin/sh\necho 'no bus' >&2\nexit 1\n")
    assert main(["schedule", "configs/nightly.yaml", *CRON, "--target=systemd", "--install"]) == 1
    assert "systemctl --user daemon-reload: no bus; the units are in" in capsys.readouterr().err


def test_hf_command_takes_the_configuration_along_and_secrets_by_name(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LB_TEST_BUCKET", "swordfish")
    job = tmp_path / "job.yaml"
    job.write_text(
        Path("configs/nightly.yaml")
        .read_text()
        .replace("${LEVIT_BATCH_IMAGES:-configs/demo/label}", "s3://${LB_TEST_BUCKET}/x")
    )
    arguments = [
        "--target=hf-jobs",
        "--set=output.path=s3://labels/out",
        "--image=img",
        "--set=model.checkpoint=facebook/levit-128S",
    ]
    assert main(["schedule", str(job), "--cron", "0 2 * * 1", *arguments]) == 0
    text = capsys.readouterr().out
    words = shlex.split(text)
    assert words[:4] == ["hf", "jobs", "scheduled", "run"] and "--no-concurrency" in words
    assert [words[i + 1] for i, word in enumerate(words) if word == "--secrets"] == ["HF_TOKEN", "LB_TEST_BUCKET"]
    assert "swordfish" not in text
    config = json.loads(words[words.index("--env") + 1].removeprefix("JOB="))
    assert config["source"]["path"] == "s3://${LB_TEST_BUCKET}/x" and config["output"]["path"] == "s3://labels/out"
    assert words[words.index("0 2 * * 1") + 1] == "img"
    hf = shutil.which("hf") or str(Path(shutil.which("python") or "").parent / "hf")
    if Path(hf).exists():  # its own parser takes the command, and tells what it would submit
        env = os.environ | {"HF_TOKEN": "hf_none", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([hf, *words[1:4], "--help"], capture_output=True, text=True, env=env)
        assert all(
            word.split("=")[0] in done.stdout for word in words[4:] if word.startswith("--") and "=" in word[:12]
        )


HOOK = [
    "--set=source.path=s3://b/x",
    "--set=output.path=s3://b/o",
    "--set=model.checkpoint=facebook/levit-128S",
    "--set=notify.webhook=https://hooks/x",
]


def test_mistakes_are_one_line(capsys):
    for arguments, said in [
        (["--target=kuberay", "--image=x", "--install"], "pipe it to kubectl"),
        (["--target=hf-jobs"], "--image"),
        (["--target=hf-jobs", "--image=x"], "is a local path"),
        (["--target=hf-jobs", "--image=x", *HOOK], "notify.webhook: it holds a secret"),
        (["--target=kuberay"], "--image"),
    ]:
        assert main(["schedule", "configs/nightly.yaml", *CRON, *arguments]) == 2
        assert said in capsys.readouterr().err
    assert main(["schedule", "configs/nightly.yaml", "--cron", "61 2 * * *", "--target=cron"]) == 2
    assert "61 is not a minute" in capsys.readouterr().err
