"""The LeViT family in plain torch, in Hugging Face's names: configuration, processor, models, checkpoints.

config*, variants, blocks, model    the five sizes; backbone, classifier, classifier with two heads
outputs, losses                     what they return, and what labels add
pretrained, checkpoint*, weights    every published form of weights, loaded strictly
backbone                            whether stored embeddings are a checkpoint's own
processor*                          the image processor
catalogue, cost                     the published sizes and what they cost
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "config": ["LevitConfig"],
        "variants": ["VARIANTS"],
        "model": ["LevitModel", "LevitForImageClassification", "LevitForImageClassificationWithTeacher"],
        "processor": ["LevitImageProcessor", "LevitFeatureExtractor"],
        "checkpoint": ["Checkpoint", "load_checkpoint"],
    },
)
