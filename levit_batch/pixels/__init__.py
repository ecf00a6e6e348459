"""Encoded bytes to uint8 pixels, or the reason why not. Free of torch at import, for the decoding child.

decode, modes           bytes to RGB
preprocessing           how: the values of preprocessor_config.json
fit, resize             to the size that the model takes
preprocess              both, for many images
hashes                  of the bytes, and of what the pixels look like
isolate, decode_child   the same in a process that may die; watchdog ends it when it hangs
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "preprocess": ["Preprocessor"],
        "preprocessing": ["Preprocessing"],
    },
)
