"""Where images come from: one room for each `source.type`, all of them a `Source`.

source                      what every source does; `open_source` finds the room by its name
parquet, arrow, imagefolder, webdataset, huggingface
columns/                    a source's own columns to the standard ones: image, target, kept
tables, cursor, damage      bounded tables; reading on from where it broke off; what will never be readable
footers                     what is known of files that were opened before
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "source": ["Source", "open_source"],
    },
)
