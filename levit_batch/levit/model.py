"""LeViT in torch alone: the backbone and its two classifiers, with Hugging Face's parameter names.

Source of the architecture: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference",
arXiv 2104.01136; its parts are in `blocks`. Shapes: B images, C channels, N points of a stage's square grid, D the
width of the last stage, K classes. This unfolded form trains; `levit_batch.inference.fold` makes the one for inference.
"""

from torch import Tensor, nn

from levit_batch.levit.blocks import Encoder, Head, Stem, initialise
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.losses import classification_loss
from levit_batch.levit.outputs import BackboneOutput, ClassifierOutput, TeacherOutput
from levit_batch.levit.pretrained import HubModel, asked_for


class LevitModel(HubModel):
    """The backbone: normalised pixels in, features out.

    `forward(pixel_values [B, C, H, W] float, output_hidden_states=None, return_dict=None) -> BackboneOutput`, or the
    tuple of it where `return_dict` is False; None is what the configuration says. H and W must be `config.image_size`:
    the attention biases are learnt for one grid. Raises ValueError for any other shape.
    """

    prefix = "levit."

    def __init__(self, config: LevitConfig | None = None):
        super().__init__(config)
        self.patch_embeddings = Stem(self.config)
        self.encoder = Encoder(self.config)
        initialise(self, self.config)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput | tuple:
        self._check_pixels(pixel_values)
        states = self.encoder(self.patch_embeddings(pixel_values))
        hidden = states if asked_for(output_hidden_states, self.config.output_hidden_states) else None
        return self._returned(BackboneOutput(states[-1], states[-1].mean(dim=1), hidden), return_dict)

    def _check_pixels(self, pixel_values: Tensor | None) -> None:
        if pixel_values is None:
            raise ValueError("you have to give pixel_values")
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"this LeViT takes images of {expected} (channels, height, width), got {tuple(pixel_values.shape[1:])}"
            )


class Classifier(HubModel):
    """The backbone with its `heads`, each under its own name; without classes each head hands the features on."""

    def __init__(self, config: LevitConfig | None = None):
        super().__init__(config)
        self.levit = LevitModel(self.config)
        self.levit.config = self.config  # one for both, so that a change reaches both
        for name in self.heads:
            setattr(self, name, Head(self.config) if self.config.num_labels else nn.Identity())
        for name in self.heads:
            initialise(getattr(self, name), self.config)


class LevitForImageClassification(Classifier):
    """The backbone with one head.

    `forward(pixel_values [B, C, H, W], labels=None, output_hidden_states=None, return_dict=None, label_smoothing=0.0)`
    gives a ClassifierOutput, or the tuple of it; `labels` add the `loss` that `losses.classification_loss` describes.
    """

    heads = ("classifier",)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        label_smoothing: float = 0.0,
    ) -> ClassifierOutput | tuple:
        features = self.levit(pixel_values, output_hidden_states, return_dict=True)
        logits = self.classifier(features.pooler_output)
        loss = None if labels is None else classification_loss(logits, labels, self.config, label_smoothing)
        return self._returned(ClassifierOutput(loss, logits, features.hidden_states), return_dict, features)


class LevitForImageClassificationWithTeacher(Classifier):
    """The backbone with two heads: one learnt from the labels, one from a teacher's answers; predictions average them.

    `forward(pixel_values [B, C, H, W], output_hidden_states=None, return_dict=None, labels=None, teacher_labels=None,
    label_smoothing=0.0) -> TeacherOutput`, or the tuple of it. With both kinds of labels the loss is the mean of the two
    heads' (hard distillation, DeiT, arXiv 2012.12877, section 4); smoothing applies to `labels` only. Raises ValueError
    when only one kind is given.
    """

    heads = ("classifier", "classifier_distill")

    def forward(
        self,
        pixel_values: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        teacher_labels: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> TeacherOutput | tuple:
        features = self.levit(pixel_values, output_hidden_states, return_dict=True)
        classes, distilled = self.classifier(features.pooler_output), self.classifier_distill(features.pooler_output)
        loss = self._loss(classes, distilled, labels, teacher_labels, label_smoothing)
        output = TeacherOutput(loss, (classes + distilled) / 2, classes, distilled, features.hidden_states)
        return self._returned(output, return_dict, features)

    def _loss(
        self, classes: Tensor, distilled: Tensor, labels: Tensor | None, teacher_labels: Tensor | None, smoothing: float
    ) -> Tensor | None:
        if labels is None and teacher_labels is None:
            return None
        if labels is None or teacher_labels is None:
            raise ValueError("training two heads needs both `labels` and `teacher_labels`")
        own = classification_loss(classes, labels, self.config, smoothing)
        return (own + classification_loss(distilled, teacher_labels, self.config)) / 2
