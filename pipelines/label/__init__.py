"""The main recipe: every image of a source gets a label and an embedding.

run                         the recipe
prepare, describe           what there is to do; what `levit-batch plan` says of it
execute, replica, decoder   chunks through Ray Data: read, decode, predict, write
work, record                what travels to a replica and back; a run's record
read_ahead, process         what makes it quick
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(__name__, {"run": ["run_job"], "record": ["RunResult"]})
