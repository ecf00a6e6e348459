"""Kills the process that writes a Parquet table in which a column `deed` says so, to prove that a job survives such a chunk.

Switched on, in every Python process that has this folder on PYTHONPATH, by the environment variable `DEADLY_WRITE`: the deed
that kills.
"""

import os

import pyarrow.compute as pc
import pyarrow.parquet as pq


def register() -> None:
    write = pq.ParquetWriter.write_table

    def deadly(writer, table, *arguments, **options):
        if "deed" in table.schema.names and pc.any(pc.equal(table["deed"], os.environ["DEADLY_WRITE"])).as_py():
            os._exit(3)
        return write(writer, table, *arguments, **options)

    pq.ParquetWriter.write_table = deadly
