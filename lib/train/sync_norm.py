"""BatchNorm whose statistics are those of all processes' batches together (TRAIN.SYNC_BN), on any device."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import World


class SyncBatchNorm(_BatchNorm):
    """BatchNorm over the parts of a batch that several processes hold; each must have the same size.

    PyTorch's layer of this name needs CUDA. In evaluation mode it is the ordinary BatchNorm. It takes the place of
    `norm`, with the same parameters and buffers.
    """

    def __init__(self, norm: _BatchNorm, world: World) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats,
                         device="meta")
        self._world = world
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.train(norm.training)

    def _check_input_dim(self, x: Tensor) -> None:
        """Any input (B, C, ...) will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        others = [dim for dim in range(x.ndim) if dim != 1]
        own = torch.stack([values.mean(others), values.var(others, correction=0)])         # (2, C)
        every = own.new_zeros(self._world.size, *own.shape)
        every[self._world.rank] = own
        means, variances = _SumOverProcesses.apply(every).unbind(1)                         # (processes, C) each
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._follow(mean.detach(), variance.detach(), x.numel() // x.shape[1] * self._world.size)
        shape = [1, -1] + [1] * (x.ndim - 2)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((values - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; the variance is that of a sample of `count` numbers per channel."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes, also of the gradients: each process's loss depends on every process's part."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def synchronise_norms(net: nn.Module, world: World) -> None:
    """Replace every BatchNorm in `net` by a `SyncBatchNorm`; nothing to do for a single process."""
    if world.size == 1:
        return
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SyncBatchNorm(child, world))
