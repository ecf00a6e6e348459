"""The same training in several workers of Ray Train: gradients averaged by torch.distributed, events through a file."""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levit_batch.errors import JobError, LevitBatchError, UserError, causes
from levit_batch.job.config import ComputeConfig
from levit_batch.training.config import FinetuneConfig, Report
from levit_batch.training.feed import TrainPlan
from levit_batch.training.state import NAME as STATE
from levit_batch.training.trainer import Trainer
from pipelines.cluster.session import ray_session
from pipelines.finetune.output import read_json, save_checkpoint, write_json

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

EVERY = 0.2  # seconds between two step events


def train_with_ray(
    config: FinetuneConfig, plan: TrainPlan, work: Path, verbose: bool, report: Report
) -> dict[str, Any]:
    """Train in `compute.workers` workers; `work` must be on a disk that all of them see. Raises as `Trainer.run`."""
    compute = ComputeConfig(address=config.compute.address)
    for name in ("result.json", "events.jsonl"):
        (work / name).unlink(missing_ok=True)
    with ray_session(compute, verbose), _tailed(work / "events.jsonl", report):
        _fit(config, plan, work, verbose)
    return read_json(work / "result.json")


def _fit(config: FinetuneConfig, plan: TrainPlan, work: Path, verbose: bool) -> None:
    """Run the workers to the end. When one dies all are started again, as long as they got further than the last time."""
    if not verbose:
        logging.getLogger("ray.train").setLevel(logging.ERROR)
    saved = None
    while True:
        try:
            _trainer(config, plan, work).fit()
            return
        except Exception as e:
            error = our_error(e)
            before, saved = saved, _saved(work)
            if isinstance(error, UserError) or saved == before:
                raise error from e


def _saved(work: Path) -> int | None:
    """Which training state is there."""
    with contextlib.suppress(FileNotFoundError):
        return (work / STATE).stat().st_mtime_ns
    return None


def _trainer(config: FinetuneConfig, plan: TrainPlan, work: Path) -> "TorchTrainer":
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    cluster, workers = ray.cluster_resources(), config.compute.workers
    gpu = config.compute.gpus_per_worker
    gpu = cluster.get("GPU", 0) >= workers if gpu == "auto" else gpu > 0
    threads = config.compute.threads
    threads = max(1, int(cluster.get("CPU", 1)) // workers) if threads == "auto" else threads
    compute = config.compute.model_copy(update={"gpus_per_worker": int(gpu), "threads": threads})
    settings = {"config": config.model_copy(update={"compute": compute}).model_dump(), "plan": plan}
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=settings | {"work": str(work), "cwd": os.getcwd()},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="ray", storage_path=str(work)),
    )
    trainer._register_sigint_handler = lambda controller: None  # it would end this process in silence
    return trainer


def our_error(error: Exception) -> Exception:
    """What a worker raised on purpose, else a JobError about the workers."""
    for failure in getattr(error, "worker_failures", {}).values():
        if ours := next((cause for cause in causes(failure) if isinstance(cause, LevitBatchError)), None):
            return type(ours)(str(ours).strip())
    return JobError(f"the training workers failed: {error}; run the same command again to go on, --verbose shows more")


def train_worker(settings: dict[str, Any]) -> None:
    """One worker's whole life; Ray Train has connected it to the others."""
    import torch

    with contextlib.suppress(OSError):
        os.chdir(settings["cwd"])  # paths of a configuration start where the command was run
    config, work = FinetuneConfig(**settings["config"]), Path(settings["work"])
    torch.set_num_threads(config.compute.threads)
    trainer = Trainer(config, settings["plan"], work, _event_writer(work / "events.jsonl"), config.compute.threads)
    result = trainer.run()
    if trainer.workers.first:
        save_checkpoint(trainer.student, work)
        write_json(work / "result.json", result)


def _event_writer(path: Path) -> Report:
    last = [0.0]

    def write(event: dict[str, Any]) -> None:
        if "entry" in event or time.monotonic() - last[0] > EVERY:
            last[0] = time.monotonic()
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    return write


@contextlib.contextmanager
def _tailed(path: Path, report: Report) -> Iterator[None]:
    """Pass on what the first worker appends to `path`, from a thread, for as long as the context lasts."""
    path.touch()
    done = threading.Event()

    def follow() -> None:
        with open(path, encoding="utf-8") as file:
            rest = ""
            while True:
                last = done.is_set()
                rest += file.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    report(json.loads(line))
                if last:
                    return
                done.wait(EVERY)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
