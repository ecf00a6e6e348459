"""`levit-batch finetune CONFIG`: train a LeViT on labelled images, into a checkpoint folder that `run` can label with.

plan the chunks -> train (here, or in Ray Train's workers), saving the state -> write the checkpoint, history and curve
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from levit_batch.errors import OutputError, SourceError
from levit_batch.finetune_config import FinetuneConfig, TrainSourceConfig
from levit_batch.load_config import load_config
from levit_batch.storage import scheme

WORK = "_training"  # the state of an unfinished training, below the output folder
RESULTS = ("preprocessor_config.json", "config.json", "model.safetensors")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("finetune", help="train a LeViT on labelled images", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="YAML file, for example configs/finetune_demo.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one option")
    parser.add_argument("--overwrite", action="store_true", help="start afresh: delete the training that is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit code of the command; errors of the user are raised for the command to print."""
    config = load_config(args.config, args.set, schema=FinetuneConfig)
    from pipelines.finetune_progress import shown

    with shown(quiet=args.json) as report:
        result = finetune(config, overwrite=args.overwrite, report=report)
    if args.json:
        print(json.dumps(result))
    else:
        print(_summary(result), file=sys.stderr)
    return 0


def finetune(config: FinetuneConfig, *, overwrite: bool = False, report: Any = lambda event: None) -> dict[str, Any]:
    """Train as `config` says, going on from where an earlier call was killed. Returns the content of `history.json`.

    A finished training of the same configuration is not repeated. Raises ConfigError, SourceError, CheckpointError or
    OutputError for what the user can mend, JobError when the training runs away.
    """
    folder = _folder(config)
    with _alone(folder):
        if overwrite:
            _delete(folder)
        plan, values = make_plan(config)
        if done := _same_training(folder, values):
            return done
        work = folder / WORK
        _write(work / "values.json", values)
        if config.compute.workers > 1:
            from pipelines.finetune_ray import train_with_ray

            result = train_with_ray(config, plan, work, report)
        else:
            result = train_here(config, plan, work, report)
        return _finish(config, folder, values, result)


def make_plan(config: FinetuneConfig) -> tuple[Any, dict[str, Any]]:
    """The TrainPlan, and the flat values that make this training what it is."""
    from levit_batch.sources import open_source
    from levit_batch.student import build_student, load_teacher, starting_point
    from levit_batch.train import TrainPlan
    from levit_batch.train_targets import class_names

    start = starting_point(config.model)
    source = _with_teacher_column(config.source)
    opened = open_source(source)
    chunks, rows = _chunks(source, config)
    validation, _ = _chunks(config.validation.source, config) if config.validation.source else (chunks, rows)
    names = class_names(opened, start.class_names if start else None)
    build_student(config, start, names)  # finds what is wrong with the model before anything is written
    load_teacher(config, names)
    held_out = 0 if config.validation.source else config.validation.fraction
    plan = TrainPlan(tuple(names), tuple(chunks), round(rows * (1 - held_out)), tuple(validation))
    return plan, _values(config, plan, start)


def _with_teacher_column(source: TrainSourceConfig) -> TrainSourceConfig:
    return source.model_copy(update={"keep_columns": [source.teacher_column] if source.teacher_column else []})


def _chunks(source: TrainSourceConfig, config: FinetuneConfig) -> tuple[list, int]:
    """The chunks of a source and how many rows they hold; small enough that every worker gets a fair share."""
    from levit_batch.plan import plan_chunks
    from levit_batch.sources import open_source

    opened = open_source(_with_teacher_column(source))
    shards = list(opened.shards())
    known = sum(shard.rows or 0 for shard in shards)
    share = -(-known // (16 * config.compute.workers)) if config.compute.workers > 1 else config.compute.chunk_rows
    chunks = list(plan_chunks(shards, max(1, min(config.compute.chunk_rows, share)), source.limit))
    rows = sum(_rows(opened, chunk) for chunk in chunks)
    if not rows:
        raise SourceError(f"source.path: {source.path} holds no rows; there is nothing to train on")
    return chunks, rows


def _rows(source: Any, chunk: Any) -> int:
    return sum(len(table) for table in source.read(chunk)) if chunk.rows is None else chunk.rows


def _values(config: FinetuneConfig, plan: Any, start: Any) -> dict[str, Any]:
    """What must be the same for a training to go on. Where and how fast it runs is not part of it; how many workers is."""
    values = _flat(config.model_dump(mode="json", exclude={"output", "compute"}))
    values |= {"compute.workers": config.compute.workers, "classes": list(plan.names)}
    values["source versions"] = sorted({f"{c.shard} {c.version}" for c in (*plan.chunks, *plan.validation_chunks)})
    return values | {"start digest": start.digest if start else None}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _same_training(folder: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """`history.json` when this training is finished; None to begin or go on. Raises OutputError for another one."""
    done, begun = _read(folder / "history.json"), _read(folder / WORK / "values.json")
    there = begun or (done or {}).get("values")
    if there is None:
        if any((folder / name).exists() for name in RESULTS):
            raise OutputError(f"output.path: {folder} holds a checkpoint that this tool did not train; choose another")
        return None
    if differing := sorted(key for key in there.keys() | values.keys() if there.get(key) != values.get(key)):
        words = [f"{key} was {there.get(key)!r}, is {values.get(key)!r}" for key in differing[:5]]
        raise OutputError(
            f"output.path: {folder} holds another training: {'; '.join(words)}; use another output.path, or --overwrite"
        )
    return None if begun else done


def train_here(config: FinetuneConfig, plan: Any, work: Path, report: Any) -> dict[str, Any]:
    """Train in this process. Returns the trainer's result; the weights wait in `work`."""
    from levit_batch.train import Trainer

    threads = os.cpu_count() or 1 if config.compute.threads == "auto" else config.compute.threads
    trainer = Trainer(config, plan, work, report, threads)
    return keep(trainer.run(), trainer.student, work)


def keep(result: dict[str, Any], student: Any, work: Path) -> dict[str, Any]:
    """Save the trained checkpoint below `work`."""
    student.save_pretrained(work / "checkpoint")
    (work / "checkpoint" / "README.md").unlink(missing_ok=True)
    return result


def _finish(config: FinetuneConfig, folder: Path, values: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Move the checkpoint into place, the weights last; then the record; then the state is no longer needed."""
    from levit_batch.learning_curve import learning_curve

    for name in RESULTS:
        os.replace(folder / WORK / "checkpoint" / name, folder / name)
    (folder / "learning_curve.svg").write_bytes(learning_curve(result["history"], result["best"]))
    record = {"checkpoint": config.output.path, **result, "values": values}
    _write(folder / "history.json", record)
    shutil.rmtree(folder / WORK)
    return record


def _folder(config: FinetuneConfig) -> Path:
    if scheme(config.output.path) not in ("", "file"):
        raise OutputError(
            f"output.path: {config.output.path}: a training is written to a local or shared disk; upload the finished folder"
        )
    return Path(config.output.path.removeprefix("file://")).expanduser().resolve()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder while training: the system lets go of it however the process ends."""
    try:
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        lock = open(folder / WORK / "lock", "a")  # noqa: SIM115
    except OSError as e:
        raise OutputError(f"output.path: {folder} cannot be written: {e}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(
                f"output.path: another training is writing to {folder}; wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            _tidy(folder)


def _tidy(folder: Path) -> None:
    """Leave no empty folders behind a training that never began."""
    work = folder / WORK
    if work.exists() and not (work / "values.json").exists():
        shutil.rmtree(work)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _delete(folder: Path) -> None:
    """Delete what a training wrote here, the lock excepted."""
    for name in (*RESULTS, "history.json", "learning_curve.svg"):
        (folder / name).unlink(missing_ok=True)
    for item in (folder / WORK).iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif item.name != "lock":
            item.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise OutputError(f"{path}: cannot be read: {e}; start afresh with --overwrite") from None


def _write(path: Path, value: dict[str, Any]) -> None:
    from levit_batch.storage import place

    place(str(path)).write_bytes((json.dumps(value, indent=1) + "\n").encode())


def _summary(result: dict[str, Any]) -> str:
    best = result["best"]
    text = f"{result['checkpoint']}: {len(result['history'])} epochs"
    if "validation_accuracy" in best:
        text += f", validation accuracy {best['validation_accuracy']:.4f} (epoch {best['epoch']})"
    return text
