"""The recipe for a checkpoint of one's own.

run         the recipe
plan        what is trained on, with what
output      the checkpoint folder, and going on in it
workers     several processes, through Ray Train
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(__name__, {"run": ["finetune"]})
