"""Batch normalisation over several ranks, on any backend."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules._functions import SyncBatchNorm as SyncBatchNormFunction
from torch.nn.modules.batchnorm import _NormBase


class BatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` whose training statistics are those of the global batch, on CPUs as on GPUs.

    With one process it is PyTorch's layer. With several, mean and variance are computed over the images of all ranks, so
    that W ranks with B images each train like one process with W * B images: on GPUs by the kernels of PyTorch's
    `SyncBatchNorm` (`_NormOnGpus`), on CPUs, for which it has none, by `_SynchronisedNorm`.

    Example:
        >>> BatchNorm(4)(torch.zeros(2, 4, 3, 3)).shape
        torch.Size([2, 4, 3, 3])
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise (B, C, H, W) per channel."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x_BCHW)
        if x_BCHW.is_cuda:
            return self._on_gpus(x_BCHW)
        y, mean, variance, count = _SynchronisedNorm.apply(x_BCHW, self.weight, self.bias, self.eps)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum or 0.1)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum or 0.1)
        return y

    def _on_gpus(self, x_BCHW: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        world, momentum = dist.group.WORLD, self.momentum or 0.1
        statistics = (self.running_mean, self.running_var, self.eps, momentum, world, dist.get_world_size())
        return _NormOnGpus.apply(x_BCHW, self.weight, self.bias, *statistics)


class _NormOnGpus(SyncBatchNormFunction):
    """PyTorch's synchronised norm without its wait: it looks for ranks without images, which makes the host wait for the
    device in every layer. Here every rank has images.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, eps, momentum, group, count):
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        mean, scale = torch.batch_norm_stats(x, eps)
        mine = torch.cat([mean, scale, mean.new_full((1,), x.numel() // x.shape[1])])
        ranks = mine.new_zeros(count, len(mine))
        ranks[dist.get_rank(group)] = mine
        dist.all_reduce(ranks, group=group)  # a sum with zeros: every backend has it on GPUs
        means, scales, counts = ranks.split([len(mean), len(mean), 1], dim=1)
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means, scales, running_mean, running_var, momentum, eps, counts.flatten().to(running_mean.dtype)
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        ctx.process_group = group
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)


class _SynchronisedNorm(torch.autograd.Function):
    """y = w (x - m) / sqrt(v + eps) + b with m, v over all ranks; the gradient follows m and v through every rank."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, eps: float):
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # statistics of half precision are kept in float32
        count = values.new_tensor([values.numel() / values.shape[1]])
        first = torch.cat([values.sum(dim=(0, 2, 3)), count])
        dist.all_reduce(first)
        count, mean = first[-1], first[:-1] / first[-1]
        centred = values - mean[None, :, None, None]
        variance = centred.square().sum(dim=(0, 2, 3))  # two passes: no cancellation where mean >> deviation
        dist.all_reduce(variance)
        variance /= count
        scale = (variance + eps).rsqrt()
        normed = centred * scale[None, :, None, None]
        ctx.save_for_backward(normed, weight, scale, count)
        y = (normed * weight[None, :, None, None] + bias[None, :, None, None]).to(x.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx, grad_y: Tensor, *_):
        normed, weight, scale, count = ctx.saved_tensors
        grad = grad_y.to(normed.dtype)
        grad_bias = grad.sum(dim=(0, 2, 3))
        grad_weight = (grad * normed).sum(dim=(0, 2, 3))
        both = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(both)
        mean_grad, mean_product = (both / count).chunk(2)
        inner = grad - mean_grad[None, :, None, None] - normed * mean_product[None, :, None, None]
        grad_x = inner * (weight * scale)[None, :, None, None]
        return grad_x.to(grad_y.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def activation(slope: float) -> nn.Module:
    """Leaky ReLU with a slope: 0 is ReLU, 0.01 that of in-place activated batch norm, 1 the identity."""
    if slope == 1.0:
        return nn.Identity()
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the momentum of all batch norms of a network."""
    for module in network.modules():
        if isinstance(module, _NormBase):
            module.momentum = momentum
