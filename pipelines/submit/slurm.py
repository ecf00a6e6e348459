"""A job as Slurm runs it: a script for sbatch that makes a Ray cluster of the nodes it gets, for as long as the job lasts.

`ray symmetric-run` starts the head on the first node, the others beside it, then the command on the head, and stops all.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from levit_batch.errors import ConfigError
from levit_batch.job.config import JobConfig
from pipelines.cluster.session import local_paths

PORT = 6379
LAST_SECONDS = 120  # from SIGTERM to the time limit: chunks under way are given up at once
LOCK_WAIT = 300  # seconds; a claim of a job that was killed expires after 120


@dataclass(frozen=True)
class Slurm:
    """What a script says beyond the job's configuration. cpus, memory and gpus are those of one node, minutes the time limit.

    command: `run` or `nightly` and its options; overrides: what `--set` said; folder: where relative paths start.
    """

    name: str
    config: Path
    folder: Path
    command: tuple[str, ...] = ("run",)
    overrides: tuple[str, ...] = ()
    nodes: int = 4
    gpus: int = 0
    cpus: int = 4
    memory: str = "16Gi"
    minutes: int = 720


def sbatch_script(config: JobConfig, slurm: Slurm) -> str:
    """The script. Raises ConfigError for a local path that is not said to be on every node."""
    for key, path in local_paths(config):
        if not config.output.shared:
            raise ConfigError(f"{key}: {path} is a local path; say output.shared=true when every node has it at the same place")
    if slurm.nodes < 1:
        raise ConfigError("--workers: at least one node")
    command, *options = slurm.command
    words = [sys.executable, "-m", "pipelines.cli", command, str(slurm.config), f"--wait-for-lock={LOCK_WAIT}", *options]
    job = shlex.join([*words, *(f"--set={one}" for one in slurm.overrides)])
    gpus = f"\n#SBATCH --gpus-per-node={slurm.gpus}" if slurm.gpus else ""
    return f"""#!/bin/bash
#SBATCH --job-name={slurm.name}
#SBATCH --nodes={slurm.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task={slurm.cpus}
#SBATCH --mem={slurm.memory.replace("i", "")}{gpus}
#SBATCH --time={slurm.minutes}
#SBATCH --signal=B:TERM@{LAST_SECONDS}
#SBATCH --output=%x-%j.log
# Submit it with what your site wants: sbatch --partition=... --account=... FILE. What ran out of time goes on when it is
# submitted again. Nodes are taken whole: Ray stops every Ray of yours on them in the end.

cd {shlex.quote(str(slurm.folder))} || exit
export PATH={shlex.quote(os.path.dirname(sys.executable))}:"$PATH"
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID" RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# Whoever reaches its port but has not its token cannot use this cluster.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):{PORT}
driver=$(mktemp)  # here, on the first node: the number of the process that SIGTERM is for; Ray below it must not get it

srun ray symmetric-run --address "$head" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus={slurm.cpus} --num-gpus={slurm.gpus} -- \\
    sh -c 'echo $$ > "$0" && exec "$@"' "$driver" \\
    {job} --set=compute.address="$head" &
srun=$!
trap 'kill -TERM "$(cat "$driver")"' TERM
wait "$srun"
code=$?
while kill -0 "$srun" 2> /dev/null; do
    wait "$srun"
    code=$?
done
srun rm -rf "$RAY_TMPDIR"
rm -f "$driver"
exit "$code"
"""
