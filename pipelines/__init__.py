"""Recipes and the command. They import `levit_batch`; never the reverse."""

import os

from pipelines.submit import job_env

# Every process of a job that `levit-batch submit --env NAME` sent, the driver as well as the workers, imports this package
# before it opens anything.
if job_env.ENV_VARIABLE in os.environ:
    job_env.take()
