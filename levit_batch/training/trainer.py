"""The training loop of one worker: epochs of batches, validation, keeping the best, saving and resuming.

`pipelines/finetune/run.py` makes the plan and calls `Trainer(...).run()`, in its own process or in Ray Train's workers.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from levit_batch.errors import JobError, SourceError
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.training.batch_norm import set_training, sync_batch_norm
from levit_batch.training.config import FinetuneConfig, Report
from levit_batch.training.data import Batch
from levit_batch.training.feed import Feed, ImageFeed, TrainPlan
from levit_batch.training.optimise import learning_rate, make_optimizer
from levit_batch.training.state import State, load_state, save_state
from levit_batch.training.student import Normalise, build_student, load_teacher, starting_point
from levit_batch.training.workers import Workers


class Trainer:
    """Trains one student as `config` says. Every worker makes one and calls `run`; rank 0 writes into `folder`."""

    def __init__(self, config: FinetuneConfig, plan: TrainPlan, folder: Path, report: Report, threads: int = 2):
        self.config, self.plan, self.folder, self.report = config, plan, folder, report
        self.workers = Workers.current()
        self.device = torch.device("cuda" if torch.cuda.is_available() and _wants_gpu(config) else "cpu")
        names = list(plan.names)
        self.student = build_student(config, starting_point(config.model), names).to(self.device)
        if config.train.batch_norm == "synced":
            sync_batch_norm(self.student)
        self.teacher = load_teacher(config, names)
        if self.teacher is not None:
            self.teacher.to(self.device)
        self.learner = self.student  # what a batch goes through
        self.normalise = Normalise(self.student.processor).to(self.device)
        self.optimizer = make_optimizer(self.student, config.train)
        self.feed = self._make_feed(threads)
        self.batch = config.train.batch_size // self.workers.count
        self.steps_an_epoch = max(1, plan.rows // config.train.batch_size)
        self.state = State()

    def _make_feed(self, threads: int) -> Feed:
        return ImageFeed(self.config, self.plan, self.workers, Preprocessing.read(self.student.processor), threads)

    def run(self) -> dict[str, Any]:
        """Train to the end from wherever the folder's state is. Returns `result`; the student then has the weights kept.

        Raises SourceError when there is too little to train on, JobError when the loss is no longer a number.
        """
        self._resume()
        model = self.learner
        if self.workers.count > 1:
            model = DistributedDataParallel(self.student, broadcast_buffers=False)
        while self.state.epoch < self.config.train.epochs and not self._stalled():
            self._epoch(model)
            self._save()
        if self.state.best_weights is not None:  # kept where `keep: best` is and there is validation to judge by
            self.student.load_state_dict(self.state.best_weights)
        return {"history": self.state.history, "best": self.state.best, "stopped_early": self._stalled()}

    def _stalled(self) -> bool:
        patience = self.config.train.early_stopping
        return patience is not None and self.state.since_best >= patience

    def _epoch(self, model: nn.Module) -> None:
        state, started = self.state, time.monotonic()
        before, saved_at = state.seconds, state.step
        set_training(self.student, self.config.train.freeze == "backbone", self.config.train.batch_norm == "frozen")
        for batch in self._agreed(self.feed.batches(state, self.batch)):
            self._step(model, batch)
            state.consumed = self.workers.gather(batch.consumed) if self._save_due(saved_at) else []
            if state.consumed:
                state.seconds, saved_at = before + time.monotonic() - started, state.step
                self._save()
        self._close_epoch(before + time.monotonic() - started)

    def _save_due(self, saved_at: int) -> bool:
        return self.state.step - saved_at >= self.config.train.save_steps

    def _agreed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches as long as every worker has one: a step needs all of them."""
        taken = self.state.step
        while self.workers.all((batch := next(batches, None)) is not None):
            yield batch
        batches.close()
        if self.state.step == taken and not self.state.sums[2]:
            raise SourceError(
                f"source.path: too few rows to train on: {self.plan.rows} planned, not one batch of "
                f"{self.config.train.batch_size} usable ({_counts(self.feed.skipped)}); "
                "give more images, or a smaller train.batch_size"
            )

    def _step(self, model: nn.Module, batch: Batch) -> None:
        config, state = self.config.train, self.state
        rate = learning_rate(state.step, self.steps_an_epoch * config.epochs, self._warmup_steps(), config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pixels, targets = batch.pixels.to(self.device), batch.targets.to(self.device)
        answers = {"labels": targets, "label_smoothing": config.label_smoothing}
        if self.config.distils:
            answers["teacher_labels"] = self.teacher(pixels) if self.teacher else batch.teachers.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            output = model(self.normalise(pixels), **answers)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        if config.clip_gradient:
            nn.utils.clip_grad_norm_(self.student.parameters(), config.clip_gradient)
        self.optimizer.step()
        state.step += 1
        self._count(output, targets, rate)

    def _warmup_steps(self) -> int:
        return round(self.config.train.warmup_epochs * self.steps_an_epoch)

    def _count(self, output: Any, targets: torch.Tensor, rate: float) -> None:
        state, size = self.state, len(targets)
        right = (output.logits.argmax(1) == targets).sum().item()
        sums = self.workers.total([output.loss.item() * size, right, size])
        if not np.isfinite(sums[0]):
            raise JobError(
                f"the loss is {sums[0]} in epoch {state.epoch + 1}: the training ran away; lower "
                "train.learning_rate, or set train.clip_gradient to 1"
            )
        state.sums = [have + new for have, new in zip(state.sums, sums, strict=True)]
        loss, accuracy = state.sums[0] / state.sums[2], state.sums[1] / state.sums[2]
        if self.workers.first:
            self.report(
                {"epoch": state.epoch + 1, "step": state.step, "loss": loss, "accuracy": accuracy,
                 "steps": self.steps_an_epoch * self.config.train.epochs, "learning_rate": rate}
            )  # fmt: skip

    def _close_epoch(self, seconds: float) -> None:
        """Validate, write the epoch into the history, and keep its weights when they are the best yet."""
        state = self.state
        loss, right, rows = state.sums
        entry = {"epoch": state.epoch + 1, "loss": loss / rows, "accuracy": right / rows, "rows": int(rows)}
        entry |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "seconds": round(seconds, 2)}
        entry["skipped"] = _sum_counts(self.workers.gather(self.feed.skipped))
        if self.config.validates:
            entry |= self.validate()
        state.history = [*state.history, entry]
        if self._is_best(entry):
            state.best, state.since_best = entry, 0
            if self.config.train.keep == "best" and self.config.validates:
                weights = self.student.state_dict().items()
                state.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        else:
            state.since_best += 1
        state.epoch += 1
        state.consumed, state.skipped, state.sums, state.seconds = [], [], [0.0, 0.0, 0.0], 0.0
        if self.workers.first:
            self.report({"entry": entry})

    def _is_best(self, entry: dict[str, Any]) -> bool:
        """Higher validation accuracy, or the same with a lower loss; without validation the last is the best."""
        best = self.state.best
        if best is None or not self.config.validates:
            return True
        ranks = [(-one["validation_accuracy"], one["validation_loss"]) for one in (entry, best)]
        return ranks[0] < ranks[1]

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Loss (cross-entropy of the logits that labelling uses) and accuracy over the validation rows of all workers."""
        self.student.eval()
        sums = np.zeros(3)
        for batch in self.feed.validation(max(self.batch, 64)):
            logits = self.learner(self.normalise(batch.pixels.to(self.device))).logits.cpu()
            loss = functional.cross_entropy(logits, batch.targets, reduction="sum").item()
            sums += loss, (logits.argmax(1) == batch.targets).sum().item(), len(logits)
        loss, right, rows = self.workers.total(sums.tolist())
        if not rows:
            raise SourceError("validation: there is not one good row to validate on; raise validation.fraction")
        skipped = _sum_counts(self.workers.gather(self.feed.validation_skipped))
        return {"validation_loss": loss / rows, "validation_accuracy": right / rows, "validation_rows": int(rows),
                "validation_skipped": skipped}  # fmt: skip

    def _save(self) -> None:
        random, skipped = self.workers.gather(torch.get_rng_state()), self.workers.gather(dict(self.feed.skipped))
        if self.state.consumed:
            self.state.skipped = skipped
        if self.workers.first:
            model, optimizer = self.student.state_dict(), self.optimizer.state_dict()
            save_state(self.folder, self.state, model, optimizer, random)

    def _resume(self) -> None:
        """Go on from the saved state, or start: dropped paths then differ between the workers, weights do not."""
        saved = load_state(self.folder)
        if saved is None:
            torch.manual_seed(self.config.train.seed + self.workers.rank)
            return
        self.student.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = saved["progress"]
        with suppress(IndexError):
            torch.set_rng_state(saved["random"][self.workers.rank])


def _wants_gpu(config: FinetuneConfig) -> bool:
    return config.compute.gpus_per_worker != 0


def _sum_counts(parts: list[dict[str, int]]) -> dict[str, int]:
    kinds = sorted({kind for part in parts for kind in part})
    return {kind: sum(part.get(kind, 0) for part in parts) for kind in kinds}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "no bad rows"
