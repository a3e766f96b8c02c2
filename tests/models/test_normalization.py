"""Batch norm over several processes is batch norm over the images of all of them."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from contseg.models.normalization import BatchNorm, activation

ROOT = Path(__file__).parents[2]
SHARES = [2, 2]
UNEVEN = [1, 3]


def batch() -> torch.Tensor:
    """Four images whose mean is far from zero, each of another mean."""
    generator = torch.Generator().manual_seed(0)
    offset = torch.arange(4.0).view(4, 1, 1, 1)
    return 5 + offset + torch.randn(4, 3, 5, 6, generator=generator)


def norm(kind=BatchNorm) -> nn.BatchNorm2d:
    layer = kind(3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(3, generator=generator))
    return layer


def loss(y: torch.Tensor, images: slice) -> torch.Tensor:
    """A sum over images, with another gradient for every value."""
    weights = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(2))
    return (weights[images] * y.square()).sum()


def learn(layer: nn.BatchNorm2d, images: slice) -> dict[str, torch.Tensor]:
    """Two training passes over a part of the batch; what came out of the second."""
    layer(batch()[images])
    layer.zero_grad()
    x = batch()[images].requires_grad_()
    y = layer(x)
    loss(y, images).backward()
    return {
        "output": y.detach(),
        "input gradient": x.grad,
        "weight gradient": layer.weight.grad,
        "bias gradient": layer.bias.grad,
        "running mean": layer.running_mean,
        "running var": layer.running_var,
        "batches": layer.num_batches_tracked,
    }


def rank_main(rank: int, folder: str, shares: list[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(shares))
    start = sum(shares[:rank])
    torch.save(learn(norm(), slice(start, start + shares[rank])), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [SHARES, UNEVEN], ids=str)
def test_two_processes_train_as_one_with_all_images(tmp_path, monkeypatch, shares):
    monkeypatch.syspath_prepend(str(ROOT))  # where the new processes find this file
    torch.multiprocessing.spawn(rank_main, (str(tmp_path), shares), nprocs=2)
    assert_as_alone([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])


def assert_as_alone(ranks: list[dict[str, torch.Tensor]]) -> None:
    alone = learn(norm(nn.BatchNorm2d), slice(0, 4))
    for name in ("output", "input gradient"):
        torch.testing.assert_close(torch.cat([r[name] for r in ranks]), alone[name], atol=1e-5, rtol=1e-6)
    for name in ("weight gradient", "bias gradient"):
        torch.testing.assert_close(ranks[0][name] + ranks[1][name], alone[name], atol=1e-4, rtol=1e-5)
    for name in ("running mean", "running var", "batches"):
        torch.testing.assert_close(ranks[0][name], alone[name], atol=1e-6, rtol=1e-6)
        assert torch.equal(ranks[0][name], ranks[1][name])


# --- the kernels of a GPU, in plain PyTorch -----------------------------------------------------------------------------


def batch_norm_stats(x, eps):
    return x.mean((0, 2, 3)), (x.var((0, 2, 3), unbiased=False) + eps).rsqrt()


def batch_norm_gather_stats_with_counts(x, means, scales, running_mean, running_var, momentum, eps, counts):
    shares = (counts / counts.sum())[:, None]
    mean = (shares * means).sum(0)
    variance = (shares * (scales**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def batch_norm_elemt(x, weight, bias, mean, scale, eps):
    return torch.nn.functional.batch_norm(x, mean, scale**-2 - eps, weight, bias, eps=eps)


def batch_norm_backward_reduce(grad, x, mean, scale, weight, *needed):
    assert all(needed)
    products = grad * (x - mean[:, None, None])
    sum_dy, sum_product = grad.sum((0, 2, 3)), products.sum((0, 2, 3))
    return sum_dy, sum_product, sum_product * scale, sum_dy


def batch_norm_backward_elemt(grad, x, mean, scale, weight, sum_dy, sum_product, counts):
    share, slope = sum_dy / counts.sum(), sum_product / counts.sum() * scale**2
    inner = grad - share[:, None, None] - (x - mean[:, None, None]) * slope[:, None, None]
    return inner * (weight * scale)[:, None, None]


KERNELS = (
    batch_norm_stats,
    batch_norm_gather_stats_with_counts,
    batch_norm_elemt,
    batch_norm_backward_reduce,
    batch_norm_backward_elemt,
)


def rank_with_kernels(rank: int, folder: str, shares: list[int]) -> None:
    for kernel in KERNELS:
        setattr(torch, kernel.__name__, kernel)
    BatchNorm.forward = BatchNorm._on_gpus
    rank_main(rank, folder, shares)


@pytest.mark.parametrize("shares", [SHARES, UNEVEN], ids=str)
def test_two_gpus_train_as_one_with_all_images(tmp_path, monkeypatch, shares):
    """What this package does around the kernels; they themselves are PyTorch's."""
    monkeypatch.syspath_prepend(str(ROOT))
    torch.multiprocessing.spawn(rank_with_kernels, (str(tmp_path), shares), nprocs=2)
    assert_as_alone([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])


def rank_on_gpu(rank: int, folder: str) -> None:
    """Two ranks on one GPU, with a backend that sums there through the host."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    layer, images = norm().cuda(), batch()[2 * rank : 2 * rank + 2].cuda()
    layer(images)
    layer.zero_grad()
    x = images.requires_grad_()
    y = layer(x)
    loss(y.cpu(), slice(2 * rank, 2 * rank + 2)).backward()
    found = {
        "output": y, "input gradient": x.grad, "weight gradient": layer.weight.grad, "bias gradient": layer.bias.grad,
        "running mean": layer.running_mean, "running var": layer.running_var, "batches": layer.num_batches_tracked,
    }  # fmt: skip
    torch.save({name: value.detach().cpu() for name, value in found.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernels_of_a_gpu_train_as_one_process_with_all_images(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    torch.multiprocessing.spawn(rank_on_gpu, (str(tmp_path),), nprocs=2)
    assert_as_alone([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])


def test_one_process_is_ordinary_batch_norm():
    ours, theirs = learn(norm(), slice(0, 4)), learn(norm(nn.BatchNorm2d), slice(0, 4))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_evaluation_uses_running_statistics_and_changes_none():
    layer = norm()
    learn(layer, slice(0, 4))
    before = copy.deepcopy(layer.state_dict())
    alone = layer.eval()(batch()[:1])
    assert torch.allclose(layer(batch())[:1], alone)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.0), (0.01, -0.02), (1.0, -2.0)])
def test_activation_is_a_leaky_relu_of_the_slope(slope, expected):
    assert activation(slope)(torch.tensor([-2.0])).item() == pytest.approx(expected)
