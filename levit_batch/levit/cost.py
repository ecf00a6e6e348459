"""What a configuration costs: parameters and multiply-adds, computed from its shape alone (no torch, no model)."""

from dataclasses import dataclass

from levit_batch.levit.config import LevitConfig


@dataclass(frozen=True)
class Cost:
    """Learnt numbers, and multiply-adds an image."""

    parameters: int
    macs: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.parameters + other.parameters, self.macs + other.macs)


def cost(config: LevitConfig, heads: int = 2) -> Cost:
    """Of the whole model with one head or two.

    One multiply-add counts as one "FLOP", and the softmax as one for each score, as in the paper (arXiv 2104.01136, table
    3); norms and activations are not counted.
    """
    total = _stem(config)
    sides = config.resolutions()
    for index, width in enumerate(config.hidden_sizes):
        key_dim, ratio = config.key_dim[index], config.attention_ratio[index]
        block = _attention(width, config.num_attention_heads[index], key_dim, ratio, sides[index])
        block += _mlp(width, config.mlp_ratio[index], sides[index] ** 2)
        total += Cost(block.parameters * config.depths[index], block.macs * config.depths[index])
        if index < len(config.down_ops):
            total += _way_down(config, index, sides)
    head = Cost(2 * width + width * config.num_labels + config.num_labels, width * config.num_labels)
    return total + Cost(head.parameters * heads, head.macs * heads)


def _stem(config: LevitConfig) -> Cost:
    total, before = Cost(0, 0), config.num_channels
    for width, side in zip(config.stem_widths(), config.stem_sizes(), strict=True):
        weights = before * width * config.kernel_size**2
        total += Cost(weights + 2 * width, weights * side**2)
        before = width
    return total


def _linear(inputs: int, outputs: int, points: int) -> Cost:
    """A linear layer without bias and its batch norm's scale and shift."""
    return Cost(inputs * outputs + 2 * outputs, inputs * outputs * points)


def _scores(heads: int, key_dim: int, ratio: int, queries: int, keys: int) -> Cost:
    """Query times key, softmax, score times value; one learnt bias a head and offset."""
    return Cost(heads * keys, heads * queries * keys * (key_dim + 1 + ratio * key_dim))


def _attention(width: int, heads: int, key_dim: int, ratio: int, side: int) -> Cost:
    points, values = side**2, heads * key_dim * ratio
    mixed = _linear(width, values + 2 * heads * key_dim, points) + _linear(values, width, points)
    return mixed + _scores(heads, key_dim, ratio, points, points)


def _mlp(width: int, ratio: int, points: int) -> Cost:
    if ratio == 0:
        return Cost(0, 0)
    return _linear(width, width * ratio, points) + _linear(width * ratio, width, points)


def _way_down(config: LevitConfig, index: int, sides: list[int]) -> Cost:
    down, (width, wider) = config.downs()[index], config.hidden_sizes[index : index + 2]
    points, fewer = sides[index] ** 2, sides[index + 1] ** 2
    keys, values = down.num_heads * down.key_dim, down.num_heads * down.key_dim * down.attention_ratio
    mixed = _linear(width, keys + values, points) + _linear(width, keys, fewer) + _linear(values, wider, fewer)
    mixed += _scores(down.num_heads, down.key_dim, down.attention_ratio, fewer, points)
    return mixed + _mlp(wider, down.mlp_ratio, fewer)
