"""The training loop: what the loss is, what learns and what does not, when it stops and what it keeps."""

import math

import numpy as np
import pytest
import torch

from levit_batch.errors import JobError, SourceError
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher
from levit_batch.training.trainer import Trainer
from pipelines.finetune.plan import make_plan
from pipelines.finetune.run import finetune
from tests.support.models import TINY
from tests.support.trainings import TINY_SHAPE, config, same_weights, weights

CLASSIC = "source.teacher_column=null"


@pytest.fixture(autouse=True)
def one_thread():
    """So small a model is fastest with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer(tmp_path, *overrides: str, events: list | None = None) -> Trainer:
    settings = config(tmp_path / "out", *overrides)
    return Trainer(settings, make_plan(settings)[0], tmp_path, (events if events is not None else []).append, threads=1)


def cross_entropy(logits: np.ndarray, targets: list[int], smoothing: float = 0.0) -> float:
    """By the textbook, in numpy: the mean of -sum(q log p), q the target with `smoothing` spread over all classes."""
    logits = logits.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = np.full_like(log_p, smoothing / logits.shape[1])
    q[np.arange(len(targets)), targets] += 1 - smoothing
    return float(-(q * log_p).sum(axis=1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_both_ways_equal_a_computation_by_hand(smoothing):
    torch.manual_seed(0)
    pixels, targets, teacher = torch.randn(5, 3, 64, 64), [3, 0, 6, 2, 1], [3, 1, 6, 6, 0]
    classic = LevitForImageClassification(TINY).eval()
    got = classic(pixels, labels=torch.tensor(targets), label_smoothing=smoothing)
    assert got.loss.item() == pytest.approx(cross_entropy(got.logits.detach().numpy(), targets, smoothing), rel=1e-5)
    both = LevitForImageClassificationWithTeacher(TINY).eval()
    got = both(pixels, labels=torch.tensor(targets), teacher_labels=torch.tensor(teacher), label_smoothing=smoothing)
    own = cross_entropy(got.cls_logits.detach().numpy(), targets, smoothing)
    distilled = cross_entropy(got.distillation_logits.detach().numpy(), teacher)
    assert got.loss.item() == pytest.approx((own + distilled) / 2, rel=1e-5)


@pytest.mark.parametrize("way", ["train.label_smoothing=0.2", CLASSIC])
def test_reported_loss_is_the_mean_over_the_images_of_the_epoch(tmp_path, way):
    events: list = []
    one = trainer(tmp_path, "train.epochs=1", way, events=events)
    losses = []
    original = type(one.student).forward

    def spy(self, *args, **options):
        output = original(self, *args, **options)
        if output.loss is not None:
            assert options["label_smoothing"] == one.config.train.label_smoothing > 0
            losses.append(output.loss.item())
        return output

    one.student.forward = spy.__get__(one.student)
    result = one.run()
    assert result["history"][0]["loss"] == pytest.approx(np.mean(losses)) and len(losses) == 7
    assert [event["step"] for event in events[:-1]] == list(range(1, 8)) and "entry" in events[-1]
    assert result["history"][0]["rows"] == 7 * 32


def test_teacher_column_trains_the_second_head_and_the_target_the_first(tmp_path):
    """With a teacher that always says class 4, the distillation head learns that, and the class head the digits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.support.trainings import CONFIGS

    table = pa.concat_tables(pq.read_table(file) for file in sorted((CONFIGS / "demo" / "train").glob("*")))
    place = table.schema.get_field_index("teacher")
    table = table.set_column(place, table.schema.field("teacher"), pa.array([4] * len(table)))
    pq.write_table(table, tmp_path / "fours.parquet")
    shape = [f"model.config.{key}={value}" for key, value in TINY_SHAPE.items()]
    overrides = (f"source.path={tmp_path}", "train.epochs=6", "train.learning_rate=0.005", *shape)
    settings = config(tmp_path / "out", *overrides, small=False)
    one = Trainer(settings, make_plan(settings)[0], tmp_path, print, threads=1)
    one.run()
    one.student.eval()
    answers, targets = [], []
    for chunk in one.plan.validation_chunks:
        for batch in one.feed.validation_loader.batches(one.feed.read_validation(chunk), 64, drop_last=False):
            output = one.student(one.normalise(batch.pixels))
            answers.append(torch.stack([output.cls_logits.argmax(1), output.distillation_logits.argmax(1)]))
            targets.append(batch.targets)
    (classes, distilled), targets = torch.cat(answers, dim=1), torch.cat(targets)
    assert (distilled == 4).all() and (classes == targets).float().mean() > 0.7


def test_frozen_backbone_stays_bit_for_bit_and_the_heads_learn(tmp_path):
    finetune(config(tmp_path / "first"))
    finetune(config(tmp_path / "probe", f"model={{checkpoint: {tmp_path / 'first'}}}", "train.freeze=backbone"))
    before, after = weights(tmp_path / "first"), weights(tmp_path / "probe")
    backbone = [name for name in before if name.startswith("levit.")]
    assert all(torch.equal(before[name], after[name]) for name in backbone)  # batch norm's statistics included
    heads = [name for name in before if not name.startswith("levit.") and name.endswith("linear.weight")]
    assert len(heads) == 2 and not any(torch.equal(before[name], after[name]) for name in heads)


def test_frozen_batch_norm_keeps_its_statistics_while_weights_learn(tmp_path):
    finetune(config(tmp_path / "first"))
    start = f"model={{checkpoint: {tmp_path / 'first'}}}"
    finetune(config(tmp_path / "frozen", start, "train.batch_norm=frozen"))
    finetune(config(tmp_path / "synced", start))
    before, frozen, synced = (weights(tmp_path / name) for name in ("first", "frozen", "synced"))
    running = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert running and all(torch.equal(before[name], frozen[name]) for name in running)
    assert not any(torch.equal(before[name], synced[name]) for name in running)
    assert not torch.equal(before["classifier.linear.weight"], frozen["classifier.linear.weight"])


def test_teacher_checkpoint_is_the_teacher_column_of_its_own_answers(tmp_path):
    """A checkpoint on the fly trains the same student as a table that holds what it says, without augmentation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from levit_batch.inference.fold import fold
    from levit_batch.pixels.preprocess import Preprocessor
    from tests.support.trainings import CONFIGS

    finetune(config(tmp_path / "teacher", "train.epochs=4"))
    teacher = load_checkpoint(str(tmp_path / "teacher"))
    file = sorted((CONFIGS / "demo" / "train").glob("*"))[0]
    table = pq.read_table(file)
    pixels, _ = Preprocessor(teacher.processor)([v and v["bytes"] for v in table["image"].to_pylist()])
    said = fold(teacher.model, "average", teacher.processor)(torch.from_numpy(pixels))[1].argmax(1).tolist()
    assert said != table["teacher"].to_pylist()
    place = table.schema.get_field_index("teacher")
    pq.write_table(table.set_column(place, table.schema.field("teacher"), pa.array(said)), tmp_path / file.name)
    plain = (f"source.path={tmp_path / file.name}", "augment.crop_scale=null", "source.limit=null")
    finetune(config(tmp_path / "column", *plain))
    checkpoint = f"teacher.checkpoint={tmp_path / 'teacher'}"
    finetune(config(tmp_path / "on_the_fly", *plain, CLASSIC, checkpoint))
    assert same_weights(weights(tmp_path / "column"), weights(tmp_path / "on_the_fly"))


def scripted(one: Trainer, accuracies: list[float]) -> list[dict]:
    """Let validation say `accuracies`, epoch by epoch; returns where the weights of each epoch are collected."""
    seen: list[dict] = []

    def validate() -> dict:
        seen.append({name: tensor.clone() for name, tensor in one.student.state_dict().items()})
        return {"validation_accuracy": accuracies[len(seen) - 1], "validation_loss": 1.0}

    one.validate = validate
    return seen


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best(tmp_path):
    one = trainer(tmp_path, "train.epochs=10", "train.early_stopping=3", "train.keep=best", "source.limit=80")
    seen = scripted(one, [0.5, 0.7, 0.6, 0.7, 0.65, 0.9])
    result = one.run()
    assert len(result["history"]) == 5 and result["stopped_early"] and result["best"]["epoch"] == 2
    assert same_weights(one.student.state_dict(), seen[1])


def test_last_epoch_is_kept_when_asked(tmp_path):
    one = trainer(tmp_path, "train.epochs=3", "train.keep=last", "source.limit=80")
    seen = scripted(one, [0.9, 0.5, 0.4])
    result = one.run()
    assert not result["stopped_early"] and result["best"]["epoch"] == 1
    assert same_weights(one.student.state_dict(), seen[2])


def test_validation_never_sees_a_training_row(tmp_path):
    one = trainer(tmp_path, "validation.fraction=0.25")
    parts = [{s.key for chunk in one.plan.chunks for s in read(chunk)} for read in (one.feed.read, one.feed.read_validation)]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 256 and len(parts[1]) > 40


def test_validation_may_have_a_source_of_its_own(tmp_path):
    from tests.support.trainings import CONFIGS

    other = f"validation.source={{path: {CONFIGS}/demo/label, target_column: label, limit: 100}}"
    one = trainer(tmp_path, other, "train.epochs=1", "train.batch_size=32")
    entry = one.run()["history"][0]
    assert (
        entry["rows"] == 7 * 32 and entry["validation_rows"] == 99 and entry["validation_skipped"] == {"truncated": 1}
    )


def test_without_validation_the_last_epoch_is_the_result(tmp_path):
    result = trainer(tmp_path, "validation.fraction=0", "source.limit=64", "train.keep=best").run()
    assert "validation_loss" not in result["history"][0] and result["best"]["epoch"] == 2


def test_mixed_precision_trains_nearly_the_same_and_keeps_float32_weights(tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        folder = tmp_path / precision
        folder.mkdir()
        one = trainer(folder, f"train.precision={precision}")
        losses[precision] = one.run()["history"][-1]["loss"]
        assert {p.dtype for p in one.student.parameters()} == {torch.float32}
    assert losses["float32"] != losses["bfloat16"] and losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.05)


def test_training_that_runs_away_says_so(tmp_path):
    with pytest.raises(JobError, match="ran away; lower train.learning_rate"):
        trainer(tmp_path, "train.learning_rate=1e30", "train.warmup_epochs=0", "train.epochs=3").run()


def test_gradient_is_clipped_to_the_norm_asked_for(tmp_path):
    one = trainer(tmp_path, "train.clip_gradient=0.001", "train.epochs=1", "source.limit=64")
    norms = []
    step = one.optimizer.step

    def spy() -> None:
        gradients = [p.grad.norm() for p in one.student.parameters() if p.grad is not None]
        norms.append(math.sqrt(sum(g.item() ** 2 for g in gradients)))
        step()

    one.optimizer.step = spy
    one.run()
    assert norms and max(norms) <= 0.0011


def test_too_few_rows_for_one_batch_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="not one batch of 32 usable.*smaller train.batch_size"):
        trainer(tmp_path, "source.limit=20").run()


def test_bad_rows_are_skipped_and_counted(tmp_path):
    entry = trainer(tmp_path, "source.limit=null", "train.epochs=1").run()["history"][0]
    skipped = {kind: entry["skipped"].get(kind, 0) + entry["validation_skipped"].get(kind, 0)
               for kind in ("truncated", "null", "decode")}  # fmt: skip
    assert skipped == {"truncated": 1, "null": 1, "decode": 1}
