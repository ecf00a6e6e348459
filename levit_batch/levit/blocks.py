"""The parts of a LeViT, smallest first; parameter names are Hugging Face's.

Shapes: B images, C channels, N points of a stage's square grid (side r, N = r * r). Source: arXiv 2104.01136, section 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from levit_batch.levit.config import DownOp, LevitConfig


class ConvBN(nn.Module):
    """Convolution without bias, then batch norm: [B, C, h, w] -> [B, C', h', w']."""

    def __init__(self, config: LevitConfig, in_channels: int, out_channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels, out_channels, config.kernel_size, config.stride, config.padding, bias=False
        )
        self.batch_norm = nn.BatchNorm2d(out_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.batch_norm(self.convolution(images))


class LinearBN(nn.Module):
    """Linear without bias, then batch norm over all points of all images: [B, N, C] -> [B, N, C']."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.batch_norm = nn.BatchNorm1d(out_features)

    def forward(self, points: Tensor) -> Tensor:
        points = self.linear(points)
        return self.batch_norm(points.flatten(0, 1)).view_as(points)


class Stem(nn.Module):
    """Four strided convolutions with hard-swish between them: [B, 3, H, W] -> [B, N, C]."""

    def __init__(self, config: LevitConfig):
        super().__init__()
        widths = [config.num_channels, *config.stem_widths()]
        for index in range(4):
            setattr(self, f"embedding_layer_{index + 1}", ConvBN(config, widths[index], widths[index + 1]))

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = functional.hardswish(self.embedding_layer_1(pixel_values))
        features = functional.hardswish(self.embedding_layer_2(features))
        features = functional.hardswish(self.embedding_layer_3(features))
        return self.embedding_layer_4(features).flatten(2).transpose(1, 2)


def bias_index(side: int, stride: int = 1) -> Tensor:
    """Which learnt bias each (query, key) pair takes: [N', N], N' the queries left after taking every `stride`-th.

    The bias depends on the absolute offset of the two points along each axis (section 4 of the paper), numbered
    row by row: |dy| * side + |dx|.
    """
    keys = torch.arange(side)
    offsets = (torch.arange(0, side, stride)[:, None] - keys[None, :]).abs()  # [side', side]
    index = offsets[:, None, :, None] * side + offsets[None, :, None, :]  # [y', x', y, x]
    return index.reshape(len(offsets) ** 2, side**2)


class Attention(nn.Module):
    """Multi-head attention with a learnt bias for each offset: [B, N, C] -> [B, N, C]."""

    def __init__(self, width: int, key_dim: int, heads: int, ratio: int, side: int):
        super().__init__()
        self.heads, self.widths = heads, (key_dim, key_dim, ratio * key_dim)
        self.queries_keys_values = LinearBN(width, heads * sum(self.widths))
        self.projection = LinearBN(heads * ratio * key_dim, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.register_buffer("attention_bias_idxs", bias_index(side), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        mixed = self.queries_keys_values(points).unflatten(2, (self.heads, -1))
        query, key, value = mixed.transpose(1, 2).split(self.widths, dim=3)  # [B, heads, N, key_dim or value width]
        attended = _attend(query, key, value, self.attention_biases[:, self.attention_bias_idxs])
        return self.projection(functional.hardswish(attended))


class AttentionSubsample(nn.Module):
    """Attention from every stride-th point to all points, which shrinks the grid: [B, N, C] -> [B, N', C']."""

    def __init__(self, in_width: int, out_width: int, down: DownOp, side: int):
        super().__init__()
        self.heads, self.side, self.stride = down.num_heads, side, down.stride
        self.widths = (down.key_dim, down.attention_ratio * down.key_dim)
        self.keys_values = LinearBN(in_width, down.num_heads * sum(self.widths))
        self.queries = LinearBN(in_width, down.num_heads * down.key_dim)
        self.projection = LinearBN(down.num_heads * self.widths[1], out_width)
        self.attention_biases = nn.Parameter(torch.zeros(down.num_heads, side * side))
        self.register_buffer("attention_bias_idxs", bias_index(side, down.stride), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        mixed = self.keys_values(points).unflatten(2, (self.heads, -1))
        key, value = mixed.transpose(1, 2).split(self.widths, dim=3)  # [B, heads, N, key_dim or value width]
        query = self.queries(self._subsample(points)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        attended = _attend(query, key, value, self.attention_biases[:, self.attention_bias_idxs])
        return self.projection(functional.hardswish(attended))

    def _subsample(self, points: Tensor) -> Tensor:
        grid = points.unflatten(1, (self.side, self.side))  # [B, side, side, C]
        return grid[:, :: self.stride, :: self.stride].flatten(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(key_dim) + bias) value, heads side by side: [B, N', heads * value width]."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5 + bias  # [B, heads, N', N]
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


class MLP(nn.Module):
    """Two linear layers with hard-swish between them: [B, N, C] -> [B, N, C]."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.linear_up = LinearBN(width, width * ratio)
        self.linear_down = LinearBN(width * ratio, width)

    def forward(self, points: Tensor) -> Tensor:
        return self.linear_down(functional.hardswish(self.linear_up(points)))


class Residual(nn.Module):
    """Adds a branch to its input; in training an image skips the branch with probability `drop_rate`."""

    def __init__(self, module: nn.Module, drop_rate: float):
        super().__init__()
        self.module, self.drop_rate = module, drop_rate

    def forward(self, points: Tensor) -> Tensor:
        branch = self.module(points)
        if self.training and self.drop_rate > 0:
            kept = torch.rand(len(points), 1, 1, device=points.device) >= self.drop_rate
            branch = branch * (kept / (1 - self.drop_rate)).to(branch.dtype)  # the expectation stays the same
        return points + branch


class Stage(nn.Module):
    """The blocks of one resolution, then the way down to the next: [B, N, C] -> [B, N', C']."""

    def __init__(self, config: LevitConfig, index: int):
        super().__init__()
        width, side, drop = config.hidden_sizes[index], config.resolutions()[index], config.drop_path_rate
        shape = config.key_dim[index], config.num_attention_heads[index], config.attention_ratio[index]
        layers: list[nn.Module] = []
        for _ in range(config.depths[index]):
            layers.append(Residual(Attention(width, *shape, side), drop))
            if config.mlp_ratio[index] > 0:
                layers.append(Residual(MLP(width, config.mlp_ratio[index]), drop))
        if index < len(config.down_ops):
            down, next_width = config.downs()[index], config.hidden_sizes[index + 1]
            layers.append(AttentionSubsample(width, next_width, down, side))
            if down.mlp_ratio > 0:
                layers.append(Residual(MLP(next_width, down.mlp_ratio), drop))
        self.layers = nn.ModuleList(layers)

    def forward(self, points: Tensor) -> Tensor:
        for layer in self.layers:
            points = layer(points)
        return points


class Encoder(nn.Module):
    """All stages; returns every stage's input and the last one's output."""

    def __init__(self, config: LevitConfig):
        super().__init__()
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.depths)))

    def forward(self, points: Tensor) -> tuple[Tensor, ...]:
        states = (points,)
        for stage in self.stages:
            states += (stage(states[-1]),)
        return states


class Head(nn.Module):
    """Batch norm, then linear: [B, D] -> [B, K]."""

    def __init__(self, config: LevitConfig):
        super().__init__()
        self.batch_norm = nn.BatchNorm1d(config.embedding_size)
        self.linear = nn.Linear(config.embedding_size, config.num_labels)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.linear(self.batch_norm(embedding))


@torch.no_grad()
def initialise(module: nn.Module, config: LevitConfig) -> None:
    """Fresh weights as the authors start training: each residual branch ends in a zero scale, so starts as identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=config.initializer_range)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Residual):
            last = part.module.projection if isinstance(part.module, Attention) else part.module.linear_down
            nn.init.zeros_(last.batch_norm.weight)
