"""What the peers share: one command line, transformers' processor and model, and the lines that say when rows were done."""

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import LevitForImageClassificationWithTeacher, LevitImageProcessor


def arguments(*options: str) -> argparse.Namespace:
    """IMAGES CHECKPOINT OUTPUT of the command, and numbers for `options`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    for option in options:
        parser.add_argument(option, type=int)
    return parser.parse_args()


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def processor_of(checkpoint: str) -> LevitImageProcessor:
    return LevitImageProcessor.from_pretrained(checkpoint)


class Model:
    """transformers' classifier; [N, 3, H, W] to the top five's scores and labels, and the embedding."""

    def __init__(self, checkpoint: str):
        self.model = LevitForImageClassificationWithTeacher.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def top(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        embedding = self.model.levit(pixels).pooler_output
        logits = (self.model.classifier(embedding) + self.model.classifier_distill(embedding)) / 2
        return *logits.softmax(-1).topk(5), embedding


def tell(rows: int, at: float | None = None) -> None:
    """`rows` were done now, or at a time."""
    print(json.dumps({"rows": rows, "time": time.time() if at is None else at}), flush=True)


def tell_afterwards(times: np.ndarray) -> None:
    """When each row was done, and that all of it is written now."""
    for at, rows in zip(*np.unique(times, return_counts=True), strict=True):
        tell(int(rows), float(at))
    tell(0)
