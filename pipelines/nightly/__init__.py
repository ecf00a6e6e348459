"""Every night: the main recipe, what came of it, and who is told.

run                           what the scheduler calls
notify                        a webhook or a command
schedule, cron                a job for every night
systemd, crontab, hf_jobs     each scheduler's way to say it
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(__name__, {"run": ["run_nightly"]})
