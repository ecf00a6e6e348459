"""Tables that a real model labelled, in this process: a job without Ray."""

from pathlib import Path
from typing import Any

from levit_batch.job.load import load_config
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.table.output import Output
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import Replica
from tests.support import CONFIGS
from tests.support.jobs import Job

DIGITS_MODEL = CONFIGS / "demo/levit-digits"
RUN = "20260101T000000.00Z"


def labelled(folder: Path, **sections: dict[str, Any]) -> Output:
    """The demo's digits, labelled into `folder`/out by the demo's model in a run named `RUN`."""
    job = Job(folder, DIGITS_MODEL, **{"model": {"backend": "torch"}, **sections})
    prepared = prepare(load_config(str(job.file)), False)
    prepared.write_job()
    replica = Replica(make_work(prepared, RUN, False), prepared.runnable)
    for chunk in prepared.chunks:
        replica.label(chunk)
    return prepared.output


def other_head(folder: Path, names: list[str] | None = None, seed: int = 1, heads: int = 2) -> Path:
    """The digits' model with random heads, one or two, for as many classes as there are `names` of them; saved in `folder`."""
    import torch

    from levit_batch.levit import model as levit

    torch.manual_seed(seed)
    start = load_checkpoint(str(DIGITS_MODEL))
    kind = levit.LevitForImageClassificationWithTeacher if heads == 2 else levit.LevitForImageClassification
    model = kind(start.config.with_labels(names or start.class_names)).eval()
    model.levit.load_state_dict(start.model.levit.state_dict())
    for head in (getattr(model, name) for name in model.heads):
        torch.nn.init.normal_(head.linear.weight)
        torch.nn.init.normal_(head.linear.bias)
    model.processor = start.processor
    model.save_pretrained(folder)
    return folder
