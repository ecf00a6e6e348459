"""`levit-batch schedule CONFIG --cron "0 2 * * *" --target systemd`:
print (or install) what a scheduler needs to run a job every night.
"""

import argparse

from pipelines.commands.arguments import add_job_arguments, job_and_values, overrides
from pipelines.commands.manifest import add_kubernetes_arguments, kubernetes, resource_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--cron", required=True, metavar="LINE", help='when, five fields: "0 2 * * *"')
    parser.add_argument("--timezone", default="UTC", metavar="ZONE", help="of --cron, for example Europe/Berlin")
    parser.add_argument("--target", required=True, choices=("kuberay", "systemd", "cron", "hf-jobs"))
    parser.add_argument(
        "--install", action="store_true", help="install it here (systemd, cron); without it, only print"
    )
    parser.add_argument("--flavor", default="cpu-upgrade", help="machine of Hugging Face Jobs (default: cpu-upgrade)")
    parser.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="hf://buckets/OWNER/NAME:/FOLDER",
        help="what Hugging Face Jobs mount there; local paths of the job may lie below",
    )
    add_kubernetes_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from levit_batch.errors import ConfigError

    if args.install and args.target in ("kuberay", "hf-jobs"):
        way = "pipe it to kubectl apply -f -" if args.target == "kuberay" else "run the printed command"
        raise ConfigError(f"--install: not for {args.target}; {way}")
    print(text_for(args), end="")
    return 0


def text_for(args: argparse.Namespace) -> str:
    """What to print: what the target needs, or what was installed."""
    from pathlib import Path

    from levit_batch.errors import ConfigError
    from pipelines.nightly.cron import Cron
    from pipelines.nightly.crontab import cron_lines, install_cron
    from pipelines.nightly.hf_jobs import hf_command
    from pipelines.nightly.schedule import Nightly
    from pipelines.nightly.systemd import install_systemd, systemd_units
    from pipelines.submit.manifest import ray_cron_job

    cron = Cron.parse(args.cron, args.timezone)
    if args.target == "kuberay":
        config, values, kube = kubernetes(args)
        return ray_cron_job(config, values, kube, cron.elsewhere(), args.timezone)
    (config, values), file = job_and_values(args), Path(args.config).resolve()
    name = args.name or resource_name(file.stem)
    hours = args.deadline / 3600
    job = Nightly(name, file, tuple(overrides(args)), Path.cwd(), cron, args.fail_on_drift, hours)
    if args.target == "hf-jobs":
        if not args.image:
            raise ConfigError("--image: name an image that has levit-batch; pipelines/Dockerfile makes one")
        return hf_command(config, values, job, args.image, args.flavor, [args.secret or "HF_TOKEN"], args.volume)
    log = Path.home() / ".local" / "state" / "levit-batch" / f"{name}.log"
    if args.install:
        return (install_systemd(job) if args.target == "systemd" else install_cron(job, log)) + "\n"
    if args.target == "cron":
        return cron_lines(job, log)
    return "\n".join(f"# {unit}\n{text}" for unit, text in systemd_units(job).items())
