"""An output that the real replica wrote, in this process: no Ray, so it costs what the model costs."""

from levit_batch.job.load import load_config
from levit_batch.table.output import Output
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import Replica


def label_here(config: str, *overrides: str) -> Output:
    """Label every chunk of a job and write its job.json; neither a run record, nor metrics, nor a page."""
    prepared = prepare(load_config(config, list(overrides)), False)
    prepared.write_job()
    replica = Replica(make_work(prepared, "run", False), prepared.runnable)
    for chunk in prepared.chunks:
        replica.label(chunk)
    return prepared.output
