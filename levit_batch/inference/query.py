"""One image as the job of an output would embed it, to be held against the embeddings that are stored."""

from typing import Any

import numpy as np
import torch

from levit_batch.errors import CheckpointError, SourceError
from levit_batch.inference.fold import fold
from levit_batch.levit.checkpoint import Checkpoint, load_checkpoint
from levit_batch.pixels.preprocess import Preprocessor


def _stored(job: dict[str, Any]) -> Checkpoint:
    """The checkpoint that labelled the output, from where it was then."""
    model = job["config"]["model"]
    try:
        return load_checkpoint(model["checkpoint"], job.get("model_revision") or model.get("revision"))
    except CheckpointError as e:
        raise CheckpointError(f"{e}; where the weights lie elsewhere now, name them with --checkpoint") from None


def embed_image(job: dict[str, Any], name: str, data: bytes, checkpoint: str | None = None) -> np.ndarray:
    """The embedding float32 [D] of an encoded image by the weights and preprocessing of `job` (job.json).

    name: of the image, for the error. checkpoint: where the weights are, if not where the job found them. Raises CheckpointError
    when they cannot be loaded or are others than those of the output, SourceError when the image cannot be decoded.
    """
    model = job["config"]["model"]
    loaded = load_checkpoint(checkpoint) if checkpoint else _stored(job)
    if loaded.digest != job["digest"]:
        raise CheckpointError(
            f"checkpoint {loaded.name}: its weights (sha256 {loaded.digest[:12]}) are not those that labelled the output "
            f"({job['digest'][:12]}), so its embeddings cannot be compared; give theirs with --checkpoint, or search by SHARD:ROW"
        )
    config = job["config"]
    preprocess = Preprocessor(job["processor"], config["preprocess"]["mode"], config["source"]["max_image_pixels"])
    pixels, (error,) = preprocess([data])
    if error:
        raise SourceError(f"{name}: cannot be searched for: {error}")
    with torch.inference_mode():
        embedding, _ = fold(loaded.model, model["heads"], job["processor"])(torch.from_numpy(pixels))
    return embedding[0].numpy()
