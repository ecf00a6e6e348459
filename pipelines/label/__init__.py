"""The main recipe: every image of a source gets a label and an embedding.

run                         the recipe
prepare, describe           what there is to do; what `levit-batch plan` says of it
execute                     chunks to replicas, and a record of each back
ray_execution               through Ray Data
local_execution, nursery    a few of them in processes of this machine
replica, decoder            what happens to a chunk: read, decode, predict, write
work, record                what travels to a replica and back; a run's record
read_ahead, process         what makes it quick
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(__name__, {"run": ["run_job"], "record": ["RunResult"]})
