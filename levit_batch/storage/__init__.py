"""Files, wherever they are: local paths, s3://, gs://, hf:// and https:// as one thing.

place, url      a folder or file; what its address says
stores, ranges  the remote ones' file systems; a remote file read by exact ranges
find, tree      a configured path to its files; a folder to all that it holds
identity        which content a file has
hub, retry      the Hub's client made patient, its errors in words; what passes is tried again
ahead           what comes next, read while the last is used
redact          secrets taken out of what is shown or stored
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "place": ["Place"],
        "find": ["find_files"],
    },
)
