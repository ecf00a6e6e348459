"""Milliseconds a batch of eight on one CPU thread: transformers, ours unfolded, ours folded. Best of twelve runs.

python -m tests.benchmarks.fold_speed [SIZES ...]
"""

import sys
import time
from collections.abc import Callable

import torch
import transformers

from levit_batch.inference.fold import fold
from levit_batch.levit.config import VARIANTS
from tests.support.models import normalised, photographs, signal_model

BATCH, RUNS = 8, 12


@torch.inference_mode()
def main(variants: list[str]) -> None:
    torch.set_num_threads(1)
    images = photographs(BATCH)
    pixels, floats = torch.tensor(images), normalised(images)
    print("| model | transformers | unfolded | folded, from uint8 | images a second |\n|---|---|---|---|---|")
    for variant in variants:
        model = signal_model(variant)
        config = transformers.LevitConfig(**model.config.to_dict())
        theirs = transformers.LevitForImageClassificationWithTeacher(config).eval()
        theirs.load_state_dict(model.state_dict())
        folded = fold(model)
        times = [best(lambda m=m, x=x: m(x)) for m, x in ((theirs, floats), (model, floats), (folded, pixels))]
        cells = " | ".join(f"{1000 * t:.0f} ms" for t in times)
        print(f"| LeViT-{variant} | {cells} | {BATCH / times[-1]:.0f} |", flush=True)


def best(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main(sys.argv[1:] or list(VARIANTS))
