"""A DataLoader with a worker process around transformers' processor, and its model: what timm's inference.py does."""

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import LevitImageProcessor

from tests.benchmarks.images import read_images
from tests.benchmarks.peer import Model, arguments, picture, processor_of, tell

BATCH, WORKERS = 8, 1  # the model keeps the other core busy


class Photographs(Dataset):
    def __init__(self, data: list[bytes], processor: LevitImageProcessor):
        self.data, self.processor = data, processor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.processor(picture(self.data[index]), return_tensors="pt")["pixel_values"][0]


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    model = Model(args.checkpoint)
    data = Photographs(read_images(args.images), processor_of(args.checkpoint))
    answers = []
    for pixels in DataLoader(data, batch_size=BATCH, num_workers=WORKERS, prefetch_factor=8):
        scores, labels, embedding = model.top(pixels)
        answers.append((labels, scores, embedding.half()))
        tell(len(pixels))
    columns = [list(torch.cat(parts).numpy()) for parts in zip(*answers, strict=True)]
    pq.write_table(pa.table(columns, names=["labels", "scores", "embedding"]), args.output / "answers.parquet")
    tell(0)


if __name__ == "__main__":
    main()
