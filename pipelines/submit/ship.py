"""What a cluster needs to run a job: the package, the configuration, local files that only the driver reads."""

import importlib.metadata
import json
import math
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import yaml

from levit_batch.errors import ConfigError
from levit_batch.job.config import JobConfig
from levit_batch.job.load import VARIABLE, apply_override
from levit_batch.storage.redact import stored_address
from levit_batch.storage.url import scheme
from pipelines.cluster.session import local_paths, package_folders

CONFIG_NAME, START_NAME = "job.yaml", "start.sh"
# The raylet is above every process of Ray's. Where there is no /proc, the Python is the one on the PATH.
START = r"""# Runs Python with these arguments: the one that Ray's workers run with here, which need not be on the PATH.
pid=$$ python=
while [ -z "$python" ] && [ "${pid:-1}" -gt 1 ]; do
    python=$(tr '\0' '\n' 2> /dev/null < "/proc/$pid/cmdline" | sed -n 's/^--python_worker_command=\([^ ]*\) .*/\1/p')
    pid=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$pid/status" 2> /dev/null)
done
[ -x "$python" ] || python=$(command -v python || command -v python3)
exec "$python" "$@"
"""
LARGEST = 400_000_000  # bytes of files that travel with a job; Ray refuses 500 MiB
CACHES = ["**/__pycache__", "**/*.pyc"]


def ship(
    config: JobConfig, values: dict[str, Any], folder: Path, env: list[str], pip: list[str] | None, installed: bool
) -> dict[str, Any]:
    """Fill the empty `folder` with what the cluster needs for a job, and return Ray's `runtime_env` for it.

    config: the job, validated; values: the same as YAML has it, with `${NAME}` unexpanded, so that no secret is written.
    env: names of environment variables that the job will have; their values do not travel this way (job_env.py).
    pip: None, or requirements to install there besides the package's own. installed: the nodes have the package.
    Raises ConfigError for what the cluster would not find.
    """
    for override in ["compute.address=auto", *whole_paths(config), *copy_files(config, folder)]:
        apply_override(values, override, JobConfig)
    check_secrets(values)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=math.inf)
    check_variables(text, env)
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    (folder / START_NAME).write_text(START)
    runtime_env: dict[str, Any] = {"working_dir": str(folder), "excludes": CACHES}
    if not installed:
        runtime_env["py_modules"] = package_folders()
    if pip is not None:
        runtime_env["pip"] = [*dependencies(), *pip]
    return runtime_env


def check_secrets(values: dict[str, Any]) -> None:
    """Raises ConfigError for a secret in the configuration, as YAML has it, that would lie readable where the job goes."""
    for name, section in values.items():
        for key, value in section.items() if isinstance(section, dict) else ():
            for text in filter(lambda one: isinstance(one, str) and "${" not in one, _listed(value)):
                if f"{name}.{key}" == "notify.webhook" or stored_address(text) != text:
                    raise ConfigError(
                        f"{name}.{key}: it holds a secret, which would travel readable; write it as ${{NAME}}, and say "
                        "--env NAME (submit) or --secret NAME (manifest, schedule)"
                    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_variables(text: str, env: list[str]) -> None:
    """Raises ConfigError for a `${NAME}` in the configuration that nothing will set on the cluster."""
    for match in VARIABLE.finditer(text):
        if match["default"] is None and match["name"] not in env:
            raise ConfigError(
                f"${{{match['name']}}} in the configuration is not set on the cluster; add --env {match['name']}"
            )


def environment(name: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"--env {name}: it is not set here; set it, or leave the option out")
    return os.environ[name]


def whole_paths(config: JobConfig) -> list[str]:
    """Overrides that make shared local paths absolute, since the job runs in another folder. Raises ConfigError."""
    paths = list(local_paths(config))
    if paths and not config.output.shared:
        key, value = paths[0]
        raise ConfigError(
            f"{key}: {value} is a path of this machine, which the cluster does not have; use an object store or hf://, or say "
            "output.shared=true when it is mounted at the same place on every node"
        )
    whole = {key: [] for key, _ in paths}
    for key, value in paths:
        whole[key].append(os.path.abspath(os.path.expanduser(value.removeprefix("file://"))))
    source = config.source.path
    if isinstance(source, list) and "source.path" in whole:
        here = iter(whole["source.path"])
        whole["source.path"] = [next(here) if scheme(path) in ("", "file") else path for path in source]
        return [f"{key}={json.dumps(v) if key == 'source.path' else v[0]}" for key, v in whole.items()]
    return [f"{key}={value[0]}" for key, value in whole.items()]


def copy_files(config: JobConfig, folder: Path) -> list[str]:
    """Copy local files that the driver reads into `folder`; overrides that name the copies. Raises ConfigError."""
    overrides = []
    for key, value in (
        ("model.checkpoint", config.model.checkpoint),
        ("source.class_names", config.source.class_names),
    ):
        here = Path(value).expanduser() if value else None
        if here is None or not here.exists():
            continue
        size = sum(file.stat().st_size for file in ([here] if here.is_file() else here.rglob("*")) if file.is_file())
        if size > LARGEST:
            raise ConfigError(f"{key}: {value} has {size:,} bytes, more than travels with a job; put it on the hub")
        name = f"{key.split('.')[1]}/{here.resolve().name}"
        (folder / name).parent.mkdir()
        shutil.copytree(here, folder / name) if here.is_dir() else shutil.copy(here, folder / name)
        overrides.append(f"{key}={name}")
    return overrides


def dependencies() -> list[str]:
    """What the package needs, without Ray: that has to be the cluster's own."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.exists():
        needed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        needed = [text for text in importlib.metadata.requires("levit-batch") or [] if "extra ==" not in text]
    return [text for text in needed if not re.match(r"ray\b", text)]
