"""Recipes and the command. They import `levit_batch`; never the reverse."""

import os
import sys

if sys.platform == "win32":
    print("levit-batch: Windows is not supported; it runs there under WSL, the Windows Subsystem for Linux", file=sys.stderr)
    sys.exit(2)

from pipelines.submit import job_env  # noqa: E402

# Every process of a job that `levit-batch submit --env NAME` sent, the driver as well as the workers, imports this package
# before it opens anything.
if job_env.ENV_VARIABLE in os.environ:
    job_env.take()
