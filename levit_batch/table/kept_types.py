"""The types of the kept columns, in `job.json` from before the first chunk on: every later night writes the same.

Not in the fingerprint: a shard whose type fits into the table's is no other job.
"""

import base64
import json
from typing import Any

import pyarrow as pa

from levit_batch.errors import OutputError
from levit_batch.job.config import JobConfig
from levit_batch.job.row import kept_name
from levit_batch.table.fingerprint import KEPT_TYPES, same_source
from levit_batch.table.output import Output


def kept_before(config: JobConfig, output: Output) -> pa.Schema | None:
    """The kept columns as the job in `output` has them; None in a fresh one, and in one of another source or format, which
    is refused when the whole job is known (`check_same_job`)."""
    job = output.read_json("job.json") or {}
    return kept_in(job, str(output)) if KEPT_TYPES in job and same_source(job, config) else None


def kept_in(job: dict[str, Any], where: str) -> pa.Schema | None:
    """The kept columns as `job` (job.json) has them, named as in the source; None where it does not say. Raises OutputError."""
    if KEPT_TYPES not in job:
        return None
    try:
        kept = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(job[KEPT_TYPES])))
    except (pa.ArrowException, OSError, ValueError, TypeError) as e:
        raise OutputError(f"{where}: job.json: {KEPT_TYPES} cannot be read ({e}); start afresh with --overwrite") from None
    said = job.get("kept_features", {})
    features = {name: said[kept_name(name)] for name in kept.names if kept_name(name) in said}
    return kept.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
