"""Fine-tune a LeViT on labelled images, into a checkpoint folder that `levit-batch run` can label with.

plan the chunks -> train, here or in Ray Train's workers, saving the state -> write the checkpoint, history and curve
"""

from pathlib import Path
from typing import Any

import torch

from levit_batch.training.config import FinetuneConfig, Report
from levit_batch.training.curve import learning_curve
from levit_batch.training.feed import TrainPlan
from levit_batch.training.probe import ProbeTrainer
from levit_batch.training.trainer import Trainer
from pipelines.finetune.output import (
    WORK,
    alone,
    delete_training,
    finished,
    publish,
    save_checkpoint,
    training_folder,
    write_json,
)
from pipelines.finetune.plan import make_plan


def finetune(
    config: FinetuneConfig, *, overwrite: bool = False, verbose: bool = False, report: Report = lambda event: None
) -> dict[str, Any]:
    """Train as `config` says, going on from where an earlier call was killed. Returns the content of `history.json`.

    A finished training of the same configuration is not repeated. `report` is called with each step (`epoch`, `step`,
    `steps`, `loss`, `accuracy`, `learning_rate`) and each finished epoch (`entry`). Raises ConfigError, SourceError,
    CheckpointError or OutputError for what the user can mend, JobError when the training runs away.
    """
    folder = training_folder(config.output.path)
    with alone(folder) as claim:
        work = folder / WORK
        if overwrite:
            delete_training(folder)
        plan, values = make_plan(config)
        if record := finished(folder, values):
            return record
        write_json(work / "values.json", values)
        result = _train(config, plan, work, verbose, report)
        record = {"checkpoint": config.output.path, **result, "values": values}
        claim.require()
        publish(folder, record, learning_curve(result["history"], result["best"]))
        return record


def _train(config: FinetuneConfig, plan: TrainPlan, work: Path, verbose: bool, report: Report) -> dict[str, Any]:
    if config.compute.workers > 1:
        from pipelines.finetune.workers import train_with_ray

        return train_with_ray(config, plan, work, verbose, report)
    before = torch.get_num_threads()
    threads = before if config.compute.threads == "auto" else config.compute.threads
    torch.set_num_threads(threads)
    try:
        kind = ProbeTrainer if config.source.type == "output" else Trainer
        trainer = kind(config, plan, work, report, threads)
        result = trainer.run()
    finally:
        torch.set_num_threads(before)
    save_checkpoint(trainer.student, work)
    return result
