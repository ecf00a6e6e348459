"""The inference form of a LeViT: every batch norm gone, biases gathered, one head, uint8 pixels in.

Batch norm in eval is y = (x - mean) / sqrt(var + eps) * weight + bias, a scale and a shift for each channel, so it folds into
the convolution or linear layer before it (or, in the heads, after it). Folding is done in float64 and cast once.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from levit_batch.errors import CheckpointError
from levit_batch.inference.fast_linear import FastLinear
from levit_batch.levit.blocks import MLP, Attention, AttentionSubsample, ConvBN, Head, LinearBN, Residual
from levit_batch.pixels.preprocessing import Preprocessing

Heads = Literal["average", "class", "distill"]


def fold(model: nn.Module, heads: Heads = "average", processor: dict[str, Any] | None = None) -> "FoldedLevit":
    """The classifier `model` as one module for inference; `model` itself is left as it is.

    `heads` picks what becomes `logits`: the mean of both heads (a one-head model has only that one), the class head,
    or the distillation head. `processor` gives the pixel scaling (do_rescale, rescale_factor, do_normalize,
    image_mean, image_std); by default the model's own `processor`, else Hugging Face's values. Raises CheckpointError
    when the model has no such head.
    """
    with torch.no_grad():
        return FoldedLevit(model, heads, processor or model.processor).eval().requires_grad_(False)


class FoldedLevit(nn.Module):
    """forward(pixels) -> (embedding [B, D], logits [B, K]); pixels are uint8 [B, H, W, C] or [B, C, H, W].

    H and W are the model's image size (anything else raises ValueError). Results have the module's dtype. `class_head` and
    `distill_head` (None for a one-head model) are the heads alone: linear layers that score a stored embedding.
    Moves with `.to()`, pickles, compiles without graph breaks and exports with `torch.export`.
    """

    def __init__(self, model: nn.Module, heads: Heads = "average", processor: dict[str, Any] | None = None):
        super().__init__()
        self.config = model.config
        self.stem = FoldedStem(model.levit.patch_embeddings, self.config.num_channels, processor)
        layers = [layer for stage in model.levit.encoder.stages for layer in stage.layers]
        self.layers = nn.ModuleList(_folded_layer(layer) for layer in layers)
        self.class_head = fold_head(model.classifier)
        distill = getattr(model, "classifier_distill", None)
        self.distill_head = None if distill is None else fold_head(distill)
        self.head = _merged_head(self.class_head, self.distill_head, heads)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        points = self.stem(self._channels_first(pixels))  # [B, N, C]
        for layer in self.layers:
            points = layer(points)
        embedding = points.mean(dim=1)  # [B, D]
        return embedding, self.head(embedding)

    def _channels_first(self, pixels: Tensor) -> Tensor:
        side, channels = self.config.image_size, self.config.num_channels
        if tuple(pixels.shape[1:]) == (side, side, channels):
            return pixels.permute(0, 3, 1, 2)  # a view: channels-last memory is what the stem is fastest on
        if tuple(pixels.shape[1:]) == (channels, side, side):
            return pixels.contiguous(memory_format=torch.channels_last)
        raise ValueError(
            f"this LeViT takes pixels [B, {side}, {side}, {channels}] or [B, {channels}, {side}, {side}], "
            f"got {list(pixels.shape)}"
        )


class FoldedStem(nn.Module):
    """uint8 [B, C, H, W] in channels-last memory -> points [B, N, C'].

    Normalised pixels are (x * factor - mean) / std = (x - mean / factor) * (factor / std). The scale folds into the
    first convolution; the shift cannot, because the convolution pads with normalised zeros, which are not pixel zeros.
    It is subtracted in the pass that turns uint8 into floats, which has to be made anyway.
    """

    def __init__(self, stem: nn.Module, channels: int, processor: dict[str, Any] | None):
        super().__init__()
        values = Preprocessing.read(processor, channels=channels)
        shift, scale = (torch.from_numpy(numbers) for numbers in values.shift_and_scale())
        self.register_buffer("shift", shift.float().view(1, channels, 1, 1))
        blocks = [getattr(stem, f"embedding_layer_{index}") for index in range(1, 5)]
        self.convolutions = nn.ModuleList(fold_convolution(block) for block in blocks)
        first = self.convolutions[0]
        first.weight.copy_(_folded_weight(blocks[0]) * scale.view(1, channels, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.convolutions[0](pixels - self.shift)
        for convolution in self.convolutions[1:]:
            features = convolution(functional.hardswish(features, inplace=True))
        return features.permute(0, 2, 3, 1).flatten(1, 2)


class FoldedAttention(nn.Module):
    """Attention with its bias gathered and 1 / sqrt(key_dim) inside the query weights: [B, N, C] -> [B, N', C']."""

    def __init__(self, attention: Attention | AttentionSubsample):
        super().__init__()
        self.heads, self.widths = attention.heads, attention.widths
        self.register_buffer("bias", attention.attention_biases[:, attention.attention_bias_idxs].clone())
        self.projection = fold_linear(attention.projection)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = (query @ key.transpose(-2, -1)).add_(self.bias)  # [B, heads, N', N]
        attended = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)  # [B, N', heads * value width]
        return self.projection(functional.hardswish(attended, inplace=True))


class FoldedSelfAttention(FoldedAttention):
    """The residual block of a stage: [B, N, C] -> [B, N, C], its input added."""

    def __init__(self, attention: Attention):
        super().__init__(attention)
        self.mixed = fold_linear(attention.queries_keys_values)
        per_head = self.mixed.weight.view(self.heads, sum(self.widths), -1), self.mixed.bias.view(self.heads, -1)
        for part in per_head:
            part[:, : self.widths[0]] *= self.widths[0] ** -0.5

    def forward(self, points: Tensor) -> Tensor:
        mixed = self.mixed(points).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return points + self._attend(*mixed.split(self.widths, dim=3))


class FoldedSubsample(FoldedAttention):
    """The way down between stages: queries from every `stride`-th point, [B, N, C] -> [B, N', C']."""

    def __init__(self, attention: AttentionSubsample):
        super().__init__(attention)
        self.side, self.stride = attention.side, attention.stride
        self.mixed = fold_linear(attention.keys_values)
        self.queries = fold_linear(attention.queries, scale=self.widths[0] ** -0.5)

    def forward(self, points: Tensor) -> Tensor:
        key, value = self.mixed(points).unflatten(2, (self.heads, -1)).transpose(1, 2).split(self.widths, dim=3)
        fewer = points.unflatten(1, (self.side, self.side))[:, :: self.stride, :: self.stride].flatten(1, 2)
        query = self.queries(fewer).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return self._attend(query, key, value)


class FoldedMLP(nn.Module):
    """The residual MLP block, its input added: [B, N, C] -> [B, N, C]."""

    def __init__(self, mlp: MLP):
        super().__init__()
        self.up = fold_linear(mlp.linear_up, activation="hardswish")
        self.down = fold_linear(mlp.linear_down)

    def forward(self, points: Tensor) -> Tensor:
        return points + self.down(self.up(points))


def _folded_layer(layer: nn.Module) -> nn.Module:
    inner = layer.module if isinstance(layer, Residual) else layer
    kinds = {Attention: FoldedSelfAttention, AttentionSubsample: FoldedSubsample, MLP: FoldedMLP}
    return kinds[type(inner)](inner)


def _scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """float64 [C] each: batch norm in eval is x * scale + shift."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _folded_weight(block: ConvBN) -> Tensor:
    return block.convolution.weight.double() * _scale_and_shift(block.batch_norm)[0].view(-1, 1, 1, 1)


def fold_convolution(block: ConvBN) -> nn.Conv2d:
    """Convolution then batch norm, as one convolution with a bias, its weight in channels-last memory."""
    source = block.convolution
    folded = nn.Conv2d(source.in_channels, source.out_channels, source.kernel_size, source.stride, source.padding)
    folded = folded.to(device=source.weight.device, memory_format=torch.channels_last)
    folded.weight.copy_(_folded_weight(block))
    folded.bias.copy_(_scale_and_shift(block.batch_norm)[1])
    return folded


def fold_linear(block: LinearBN, scale: float = 1.0, activation: str = "none") -> nn.Linear:
    """Linear then batch norm (then times `scale`, then the activation), as one linear layer with a bias."""
    gain, shift = _scale_and_shift(block.batch_norm)
    return _linear(block.linear.weight.double() * gain[:, None] * scale, shift * scale, activation)


def fold_head(head: Head) -> nn.Linear:
    """Batch norm then linear, as one linear layer: W (g x + s) + b = (W g) x + (W s + b)."""
    gain, shift = _scale_and_shift(head.batch_norm)
    weight = head.linear.weight.double()
    return _linear(weight * gain, weight @ shift + head.linear.bias.double())


def _linear(weight: Tensor, bias: Tensor, activation: Literal["none", "hardswish"] = "none") -> nn.Linear:
    linear = FastLinear(weight.shape[1], weight.shape[0], activation, device=weight.device)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return linear


def _merged_head(class_head: nn.Linear, distill_head: nn.Linear | None, heads: Heads) -> nn.Linear:
    if heads not in ("average", "class", "distill"):
        raise CheckpointError(f"heads must be average, class or distill, not {heads!r}")
    if heads == "distill" and distill_head is None:
        raise CheckpointError(
            "heads: distill needs a checkpoint with a distillation head; this one has a class head only"
        )
    if heads == "average" and distill_head is not None:
        weight = (class_head.weight.double() + distill_head.weight.double()) / 2
        return _linear(weight, (class_head.bias.double() + distill_head.bias.double()) / 2)
    chosen = distill_head if heads == "distill" else class_head
    return _linear(chosen.weight, chosen.bias)
