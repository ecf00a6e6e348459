"""Batch norm in training with several workers: statistics of the whole batch, or frozen."""

import torch
from torch import Tensor, nn
from torch.distributed.nn import functional as differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from levit_batch.training.workers import Workers


class SyncedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are of all workers' values together: [M, C] or [M, C, H, W], same out.

    Two workers with half a batch each compute what one computes with the whole. torch's own SyncBatchNorm does the
    same on GPUs only; this one goes through any backend. Alone, or in eval mode, it is plain batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm takes [M, C, ...], got {tuple(input.shape)}")

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or Workers.current().count == 1:
            return super().forward(values)
        self._check_input_dim(values)
        inputs = values.float()
        axes, shape = [0, *range(2, inputs.dim())], [1, -1] + [1] * (inputs.dim() - 2)
        count = torch.full((1,), inputs.numel() / inputs.shape[1], device=inputs.device)
        totals = differentiable.all_reduce(torch.cat([inputs.sum(axes), count]))
        total = totals[-1].detach()
        mean = totals[:-1] / total
        # A second round for the variance: a sum of squares less the squared mean loses digits.
        centred = inputs - mean.view(shape)
        variance = differentiable.all_reduce(centred.square().sum(axes)) / total
        self._update(mean.detach(), variance.detach() * total / (total - 1))
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        return (scaled * self.weight.view(shape) + self.bias.view(shape)).to(values.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)


def sync_batch_norm(model: nn.Module) -> None:
    """Turn every batch norm of `model` into a synced one, in place; names, weights and statistics stay."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SyncedBatchNorm  # same parameters and buffers, another forward


def set_training(model: nn.Module, freeze_backbone: bool, freeze_statistics: bool) -> None:
    """Training mode, except for what is frozen: that computes as it will in labelling."""
    model.train()
    if freeze_backbone:
        model.levit.eval()
    if freeze_statistics:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
