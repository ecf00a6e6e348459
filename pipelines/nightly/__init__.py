"""Every night: the main recipe, what came of it, and who is told.

run             what the scheduler calls
notify          a webhook or a command
schedule, cron  what the scheduler needs
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(__name__, {"run": ["run_nightly"]})
