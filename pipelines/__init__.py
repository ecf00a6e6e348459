"""Recipes and the command. They import `levit_batch`; never the reverse."""

import json
import os
from pathlib import Path

ENV_VARIABLE = "LEVIT_BATCH_ENV_FILE"
ENV_FILE = "levit_batch_env.json"

# `levit-batch submit --env NAME` ships values in a file of the job's working directory, where Ray does not show them. Every
# process of the job, the driver as well as the workers, imports this package before it opens anything.
if os.environ.get(ENV_VARIABLE) and Path(os.environ[ENV_VARIABLE]).is_file():
    os.environ.update(json.loads(Path(os.environ[ENV_VARIABLE]).read_text()))
