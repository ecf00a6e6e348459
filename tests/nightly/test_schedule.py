"""What `levit-batch schedule` prints, read by the schedulers' own tools where they are, and installed with --install."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.nightly.crontab import without

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


@pytest.fixture
def crontab(monkeypatch, tmp_path) -> Path:
    """The file in which a stand-in for `crontab` keeps its table, since this must not touch the machine's own."""
    store, program = tmp_path / "table", tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    none = "echo 'no crontab for me' >&2; exit 1"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = - ]; then exec cat > {store}; fi\n'
        f'[ -e {tmp_path}/broken ] && {{ echo "cannot open spool: Permission denied" >&2; exit 1; }}\n'
        f"[ -e {store} ] || {{ {none}; }}\ncat {store}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return store


def install(capsys) -> tuple[int, str]:
    code = main(["schedule", "configs/nightly.yaml", *CRON, "--target=cron", "--install"])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_cron_installs_once_beside_what_was_there(capsys, crontab, tmp_path):
    mine = "# caf\udce9\u2028\n5 5 * * * mine".encode("utf-8", "surrogateescape")  # not UTF-8, and without a last line end
    crontab.write_bytes(mine)
    printed(capsys, "--target=cron")
    assert crontab.read_bytes() == mine  # printing changes nothing
    for _ in range(2):
        assert "installed in the crontab" in install(capsys)[1]
    assert crontab.read_bytes().startswith(mine + b"\n# levit-batch ") and crontab.read_bytes().count(b"begin") == 1
    text = crontab.read_text(errors="surrogateescape")
    assert without(text, "levit-batch-nightly").encode(errors="surrogateescape") == mine + b"\n"
    kept = tmp_path / ".local/state/levit-batch/levit-batch-nightly.crontab-before"
    assert kept.read_bytes() == crontab.read_bytes()  # of the second time


def test_cron_begins_a_crontab(capsys, crontab):
    assert install(capsys)[0] == 0 and crontab.read_text().startswith("# levit-batch levit-batch-nightly: begin")
    assert crontab.read_text().endswith('CRON_TZ=""\n# levit-batch levit-batch-nightly: end\n')  # in cronie: none


def test_the_time_zone_holds_for_the_job_alone(capsys, crontab):
    crontab.write_text("CRON_TZ=Asia/Tokyo\n1 1 * * * before\n")
    install(capsys)
    with crontab.open("a") as file:
        file.write("2 2 * * * after\n")
    assert zones(crontab) == {"before": "Asia/Tokyo", "nightly": "Europe/Berlin", "after": "Asia/Tokyo"}
    install(capsys)  # now it stands after both
    assert crontab.read_text().endswith("CRON_TZ=Asia/Tokyo\n# levit-batch levit-batch-nightly: end\n")
    assert zones(crontab) == {"before": "Asia/Tokyo", "after": "Asia/Tokyo", "nightly": "Europe/Berlin"}


def zones(crontab: Path) -> dict[str, str]:
    """The time zone in which cronie would start each command."""
    found, zone = {}, ""
    for line in crontab.read_text().splitlines():
        if line.startswith("CRON_TZ="):
            zone = line.removeprefix("CRON_TZ=")
        elif not line.startswith("#"):
            found["nightly" if " nightly " in line else line.split()[-1]] = zone
    return found


def test_a_crontab_that_cannot_be_read_is_not_replaced(capsys, crontab, tmp_path):
    crontab.write_text("5 5 * * * mine\n6 6 * * * mine too\n")
    (tmp_path / "broken").touch()
    code, said = install(capsys)
    assert code == 1 and "crontab -l: cannot open spool: Permission denied; nothing is changed" in said
    assert said.count("\n") == 1 and crontab.read_text() == "5 5 * * * mine\n6 6 * * * mine too\n"


def test_a_block_that_does_not_end_takes_no_other_line_with_it(capsys, crontab):
    install(capsys)
    block = crontab.read_text()
    cut = "".join(block.splitlines(keepends=True)[:-1])
    for damaged in (f"{cut}5 5 * * * mine\n", f"{cut}5 5 * * * mine\n{block}", f"{block}5 5 * * * mine\n{cut}"):
        crontab.write_text(damaged)
        code, said = install(capsys)
        assert code == 1 and "without" in said and said.count("\n") == 1 and crontab.read_text() == damaged


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


def test_hf_jobs_mount_what_the_job_reads_and_writes(capsys):
    command = ["schedule", "configs/nightly.yaml", "--cron", "0 2 * * 1", "--target=hf-jobs", "--image=img"]
    command += ["--set=source.path=/data/2026/*.parquet", "--set=output.path=/labels/out"]
    volumes = ["hf://buckets/me/scans:/data:ro", "hf://buckets/me/labels:/labels/"]
    assert main([*command, *(f"--volume={volume}" for volume in volumes)]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert [word.removeprefix("--volume=") for word in words if word.startswith("--volume")] == volumes
    assert main([*command, f"--volume={volumes[0]}"]) == 2
    assert "output.path: /labels/out is a local path" in capsys.readouterr().err
    assert main([*command, "--volume=me/scans"]) == 2
    assert "write it as hf://buckets/OWNER/NAME:/FOLDER" in capsys.readouterr().err


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
