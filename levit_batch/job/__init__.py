"""What a job is, in the words that all wings share.

config, load    the YAML, checked once
chunks          shards cut into chunks: what makes one task and one output file
row             the columns of an output row; what a source yields for one
answers         what a model says about images
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "config": ["JobConfig", "SourceConfig"],
        "load": ["load_config"],
        "chunks": ["Chunk", "Shard", "plan_chunks"],
        "row": ["RowSpec", "output_schema"],
    },
)
