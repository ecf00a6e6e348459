"""LeViT in torch alone: the backbone and its two classifiers, with Hugging Face's parameter names.

Source of the architecture: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference",
arXiv 2104.01136; its parts are in `blocks`. Shapes: B images, C channels, N points of a stage's square grid, D the
width of the last stage, K classes. This unfolded form trains; `levit_batch.inference.fold` makes the one for inference.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from levit_batch.levit.blocks import Encoder, Head, Stem, initialise
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.pretrained import HubModel


class ModelOutput(NamedTuple):
    """What the backbone returns."""

    last_hidden_state: Tensor  # [B, N, D], N of the last stage
    pooler_output: Tensor  # [B, D]: the embedding
    hidden_states: tuple[Tensor, ...] | None  # the stem's output, then each stage's: [B, N, C] of that stage


class ClassifierOutput(NamedTuple):
    """What `LevitForImageClassification` returns."""

    logits: Tensor  # [B, K]
    loss: Tensor | None  # scalar, when labels were given
    hidden_states: tuple[Tensor, ...] | None
    pooler_output: Tensor  # [B, D]


class TeacherOutput(NamedTuple):
    """What `LevitForImageClassificationWithTeacher` returns."""

    logits: Tensor  # [B, K]: the mean of the two below
    cls_logits: Tensor  # [B, K]
    distillation_logits: Tensor  # [B, K]
    loss: Tensor | None  # scalar, when labels and teacher_labels were given
    hidden_states: tuple[Tensor, ...] | None
    pooler_output: Tensor  # [B, D]


class LevitModel(HubModel):
    """The backbone: normalised pixels in, features out.

    `forward(pixel_values [B, C, H, W] float, output_hidden_states=False) -> ModelOutput`. H and W must be
    `config.image_size`: the attention biases are learnt for one grid. Raises ValueError for any other shape.
    """

    prefix = "levit."

    def __init__(self, config: LevitConfig | None = None):
        super().__init__()
        self.config = config or LevitConfig()
        self.patch_embeddings = Stem(self.config)
        self.encoder = Encoder(self.config)
        initialise(self, self.config)

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False) -> ModelOutput:
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"this LeViT takes images of {expected} (channels, height, width), got {pixel_values.shape[1:]}"
            )
        states = self.encoder(self.patch_embeddings(pixel_values))
        return ModelOutput(states[-1], states[-1].mean(dim=1), states if output_hidden_states else None)


class Classifier(HubModel):
    """The backbone with its `heads`, each under its own name."""

    def __init__(self, config: LevitConfig | None = None):
        super().__init__()
        self.config = config or LevitConfig()
        self.levit = LevitModel(self.config)
        for name in self.heads:
            setattr(self, name, Head(self.config))
        for name in self.heads:
            initialise(getattr(self, name), self.config)


class LevitForImageClassification(Classifier):
    """The backbone with one head.

    `forward(pixel_values [B, C, H, W], labels=None, output_hidden_states=False, label_smoothing=0.0)` gives a
    ClassifierOutput; `labels` are class indices [B] or probabilities [B, K], and add the mean cross-entropy as `loss`.
    """

    heads = ("classifier",)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        label_smoothing: float = 0.0,
    ) -> ClassifierOutput:
        features = self.levit(pixel_values, output_hidden_states)
        logits = self.classifier(features.pooler_output)
        loss = None if labels is None else functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return ClassifierOutput(logits, loss, features.hidden_states, features.pooler_output)


class LevitForImageClassificationWithTeacher(Classifier):
    """The backbone with two heads: one learnt from the labels, one from a teacher's answers; predictions average them.

    `forward(pixel_values [B, C, H, W], labels=None, teacher_labels=None, output_hidden_states=False,
    label_smoothing=0.0) -> TeacherOutput`. With both kinds of labels ([B] indices or [B, K] probabilities) the
    loss is the mean of the two heads' cross-entropies (hard distillation, DeiT, arXiv 2012.12877, section 4);
    smoothing applies to `labels` only. Raises ValueError when only one kind is given.
    """

    heads = ("classifier", "classifier_distill")

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        teacher_labels: Tensor | None = None,
        output_hidden_states: bool = False,
        label_smoothing: float = 0.0,
    ) -> TeacherOutput:
        features = self.levit(pixel_values, output_hidden_states)
        classes, distilled = self.classifier(features.pooler_output), self.classifier_distill(features.pooler_output)
        loss = _two_head_loss(classes, distilled, labels, teacher_labels, label_smoothing)
        average = (classes + distilled) / 2
        return TeacherOutput(average, classes, distilled, loss, features.hidden_states, features.pooler_output)


def _two_head_loss(
    classes: Tensor, distilled: Tensor, labels: Tensor | None, teacher_labels: Tensor | None, smoothing: float
) -> Tensor | None:
    if labels is None and teacher_labels is None:
        return None
    if labels is None or teacher_labels is None:
        raise ValueError("training two heads needs both `labels` and `teacher_labels`")
    own = functional.cross_entropy(classes, labels, label_smoothing=smoothing)
    return (own + functional.cross_entropy(distilled, teacher_labels)) / 2
