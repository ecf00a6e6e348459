"""`levit-batch manifest CONFIG --kind rayjob|raycronjob|slurm --image IMAGE`:
print a KubeRay manifest: levit-batch manifest ... | kubectl apply -f -; or a script for Slurm's sbatch.
"""

import argparse

from pipelines.commands.arguments import add_job_arguments, job_and_values, job_config, overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--kind", choices=("rayjob", "raycronjob", "slurm"), default="rayjob")
    parser.add_argument("--cron", metavar="LINE", help='when, five fields: "0 2 * * *" (raycronjob)')
    parser.add_argument("--timezone", default="UTC", metavar="ZONE", help="of --cron, for example Europe/Berlin")
    parser.add_argument("--nightly", action="store_true", help="a rayjob, or a script, that runs the nightly recipe once")
    add_kubernetes_arguments(parser)


def add_kubernetes_arguments(parser: argparse.ArgumentParser) -> None:
    """What `manifest` and `schedule --target kuberay` ask about the cluster."""
    parser.add_argument("--image", metavar="IMAGE", help="container image that has levit-batch (pipelines/Dockerfile)")
    parser.add_argument("--name", help="of the resources (default: levit-batch- and the file's)")
    parser.add_argument("--namespace")
    parser.add_argument("--gpus", type=int, default=0, help="of one worker (default: 0)")
    parser.add_argument("--cpus", type=int, default=4, help="of one worker (default: 4)")
    parser.add_argument("--memory", default="16Gi", help="of one worker (default: 16Gi)")
    parser.add_argument("--workers", type=int, nargs=2, default=(0, 4), metavar=("MIN", "MAX"), help="default: 0 4 (slurm: MAX)")
    parser.add_argument(
        "--secret", metavar="NAME", help="secret whose keys become environment variables, HF_TOKEN for one"
    )
    parser.add_argument("--claim", metavar="NAME:/FOLDER", help="volume claim (ReadWriteMany), mounted in every pod")
    parser.add_argument(
        "--deadline", type=int, default=43_200, metavar="SECONDS", help="a longer job is ended (default: 12 h)"
    )
    parser.add_argument(
        "--ttl", type=int, default=3600, metavar="SECONDS", help="a finished job stays this long (default: 1 h)"
    )
    parser.add_argument(
        "--fail-on-drift", action="store_true", help="exit code 4 when a night's rows differ from before"
    )


def run(args: argparse.Namespace) -> int:
    from levit_batch.errors import ConfigError
    from pipelines.nightly.cron import Cron
    from pipelines.submit.manifest import ray_cron_job, ray_job

    if args.kind == "slurm":
        print(slurm_script(args), end="")
        return 0
    config, values, kube = kubernetes(args)
    if args.kind == "rayjob":
        print(ray_job(config, values, kube, args.nightly), end="")
        return 0
    if not args.cron:
        raise ConfigError('--cron: a raycronjob needs one, for example --cron "0 2 * * *"')
    print(ray_cron_job(config, values, kube, Cron.parse(args.cron, args.timezone).elsewhere(), args.timezone), end="")
    return 0


def slurm_script(args: argparse.Namespace) -> str:
    from pathlib import Path

    from pipelines.submit.slurm import Slurm, sbatch_script

    file = Path(args.config).resolve()
    drift = ("--fail-on-drift",) if args.fail_on_drift else ()
    slurm = Slurm(
        name=args.name or resource_name(file.stem),
        config=file,
        folder=Path.cwd(),
        command=("nightly", *drift) if args.nightly else ("run",),
        overrides=tuple(overrides(args)),
        nodes=args.workers[1],
        minutes=-(-args.deadline // 60),
        **{name: getattr(args, name) for name in ("gpus", "cpus", "memory")},
    )
    return sbatch_script(job_config(args), slurm)


def kubernetes(args: argparse.Namespace):
    """(configuration, the same as YAML has it, what the arguments say of Kubernetes). Raises ConfigError."""
    import importlib.metadata
    from pathlib import Path

    from levit_batch.errors import ConfigError
    from pipelines.submit.manifest import Kubernetes

    if not args.image:
        raise ConfigError("--image: name a container image that has levit-batch; pipelines/Dockerfile makes one")
    config, values = job_and_values(args)
    names = ("image", "namespace", "gpus", "cpus", "memory", "secret", "claim", "deadline", "ttl", "fail_on_drift")
    kube = Kubernetes(
        name=args.name or resource_name(Path(args.config).stem),
        ray_version=importlib.metadata.version("ray"),
        workers=tuple(args.workers),
        **{name: getattr(args, name) for name in names},
    )
    return config, values, kube


def resource_name(stem: str) -> str:
    """A name that Kubernetes takes, short enough for what KubeRay appends: my_Job -> levit-batch-my-job."""
    import re

    return f"levit-batch-{re.sub('[^a-z0-9]+', '-', stem.lower()).strip('-')}"[:40].rstrip("-")
