"""What a run writes: the output folder, its chunk files and its books.

fingerprint, places         which job the output belongs to
kept_types                  in which types it has the source's columns
output, plan, publish       its files; what is done and pending; how what readers see is replaced
rows, stats, write          a chunk's table, its sums, its file
read, scan                  what is there, read back
compact, merge, copy        few large files in place of many small ones; a copy in few
apart                       what would lie in an output, or among its source
history                     the runs, and what those wrote that were cut off
pieces                      a finished table as the source of another
footer                      what the file says of itself, small
attempts, lock, refusal     deaths counted, one run at a time, an output that cannot be written to
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "output": ["Output"],
        "plan": ["Plan"],
        "read": ["open_output"],
        "scan": ["scan"],
        "lock": ["locked"],
    },
)
