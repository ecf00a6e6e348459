"""The recipe for other heads on the embeddings of a finished table.

run                         the recipe
prepare                     which table, which heads, and whether they go together
score                       a chunk's embeddings become its file, in threads
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(__name__, {"run": ["rescore"]})
