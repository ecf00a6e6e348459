"""Daft: read_parquet, a class UDF with transformers' processor and model in two processes of one thread, write_parquet."""

import time

import daft
import pyarrow.parquet as pq
import torch
from daft import DataType, Series, col

from tests.benchmarks.peer import Model, arguments, picture, processor_of, tell_afterwards

ANSWER = DataType.struct(
    {
        "labels": DataType.list(DataType.int64()),
        "scores": DataType.list(DataType.float32()),
        "embedding": DataType.list(DataType.float32()),
        "at": DataType.float64(),
    }
)


@daft.udf(return_dtype=ANSWER, batch_size=8, concurrency=2, use_process=True)
class Label:
    def __init__(self, checkpoint: str):
        torch.set_num_threads(1)
        self.processor, self.model = processor_of(checkpoint), Model(checkpoint)

    def __call__(self, cells: Series) -> list[dict]:
        images = [picture(data) for data in cells.to_pylist()]
        answers = self.model.top(self.processor(images, return_tensors="pt")["pixel_values"])
        now = time.time()
        parts = zip(*(part.tolist() for part in answers), strict=True)
        return [{"labels": label, "scores": score, "embedding": row, "at": now} for score, label, row in parts]


def main() -> None:
    args = arguments()
    daft.set_runner_native()
    label = Label.with_init_args(args.checkpoint)
    data = daft.read_parquet(f"{args.images}/*.parquet").select(label(col("image")["bytes"]).alias("answer"))
    data.write_parquet(str(args.output / "answers"))
    answers = pq.read_table(args.output / "answers")["answer"].combine_chunks()
    tell_afterwards(answers.field("at").to_numpy())


if __name__ == "__main__":
    main()
