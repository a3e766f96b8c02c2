"""IDRNet's tables: representations of classes, and relations between them.

Learned without gradients, from the change of the loss when a class is deleted. All tables grow with the classes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from contseg.data.classes import IGNORE
from contseg.ranks import Ranks

FIRST_COUNT = 1e-6
Sync = Literal["count", "mean"]


class Tables(nn.Module):
    """Relations between classes, their representations, and how often each was deleted; buffers, never parameters.

    Args:
        classes: K.
        channels: C, channels of a representation.
        relation_momentum, memory_momentum: weight of the new value in an update.

    Buffers:
        mean, variance: (K, K), change of mean and variance of the cross-entropy of the column's class when the row's class
            is deleted. In the aggregation, the row receives (as published).
        memory: (K, C) representations, running means of the features of labelled pixels.
        counter: (K,) number of deletions of each class, starting at 1e-6.
        seen: (K,) bool, classes seen in training. The first ones are seen from the start; grown ones once they occur in
            a label, and before that no pixel is assigned to them.
    """

    mean: Tensor
    variance: Tensor
    memory: Tensor
    counter: Tensor
    seen: Tensor

    def __init__(self, classes: int, channels: int, relation_momentum: float = 0.1, memory_momentum: float = 0.1):
        super().__init__()
        self.relation_momentum, self.memory_momentum = relation_momentum, memory_momentum
        self.register_buffer("mean", torch.eye(classes))
        self.register_buffer("variance", torch.eye(classes))
        self.register_buffer("memory", torch.zeros(classes, channels))
        self.register_buffer("counter", torch.full((classes,), FIRST_COUNT))
        self.register_buffer("seen", torch.ones(classes, dtype=torch.bool))

    @torch.no_grad()
    def grow(self, count: int) -> None:
        """Add `count` unseen classes; the entries of the others do not change."""
        before, after = len(self.counter), len(self.counter) + count
        for name in ("mean", "variance"):
            old = getattr(self, name)
            new = torch.eye(after, dtype=old.dtype, device=old.device)
            new[:before, :before] = old
            setattr(self, name, new)
        self.memory = torch.cat([self.memory, self.memory.new_zeros(count, self.memory.shape[1])])
        self.counter = torch.cat([self.counter, self.counter.new_full((count,), FIRST_COUNT)])
        self.seen = torch.cat([self.seen, self.seen.new_zeros(count)])

    @torch.no_grad()
    def choose(self, present_BK: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a class to delete from each image, with probability proportional to 1 / counter: (B,) int64.

        Images are processed in order, and each choice is counted before the next. Uniform numbers of the generator (on CPU)
        become Gumbel noise, which avoids device synchronisation.
        """
        uniform = torch.rand(present_BK.shape, generator=generator, dtype=torch.float64)
        noise = -(-uniform.clamp(min=1e-300).log()).clamp(min=1e-300).log()
        precision = torch.promote_types(self.counter.dtype, torch.float32)
        noise_BK = noise.to(device=self.counter.device, dtype=precision, non_blocking=True)
        chosen = []
        for present, raised in zip(present_BK, noise_BK, strict=True):
            scores = (raised - self.counter.log()).masked_fill(~present, -torch.inf)
            chosen.append(scores.argmax())
            self.counter += torch.nn.functional.one_hot(chosen[-1], len(self.counter)).to(self.counter)
        return torch.stack(chosen)

    @torch.no_grad()
    def update_relations(self, removed_B: Tensor, change_BK2: Tensor, pixels_BK: Tensor) -> None:
        """Move the rows of the deleted classes towards the measured changes, image by image.

        Args:
            removed_B: deleted class of each image.
            change_BK2: change of mean and of variance of the cross-entropy, per labelled class.
            pixels_BK: labelled pixels of each class; with none nothing moves, with one the variance stays.
        """
        rate = self.relation_momentum
        # rows of length 1, not numbers: PyTorch reads the value of a number that it is indexed with
        for removed, change, pixels in zip(removed_B.split(1), change_BK2, pixels_BK, strict=True):
            for table, moved, enough in ((self.mean, change[:, 0], 1), (self.variance, change[:, 1], 2)):
                row = table[removed]
                table[removed] = torch.where(pixels >= enough, rate * moved.to(row) + (1 - rate) * row, row)

    @torch.no_grad()
    def update_memory(self, sums_KC: Tensor, pixels_K: Tensor) -> None:
        """Move representations towards the mean feature of the labelled pixels; classes without pixels do not change.

        Args:
            sums_KC: sum of the features over the pixels of each class.
            pixels_K: number of these pixels.
        """
        rate = self.memory_momentum
        means = sums_KC / pixels_K.clamp(min=1).unsqueeze(1)
        moved = rate * means.to(self.memory) + (1 - rate) * self.memory
        self.memory.copy_(torch.where((pixels_K > 0).unsqueeze(1), moved, self.memory))
        self.seen |= pixels_K > 0

    @torch.no_grad()
    def average(self, ranks: Ranks) -> None:
        """Replace every table by its mean over ranks (the published rule)."""
        for name in ("mean", "variance", "counter", "memory"):
            table = getattr(self, name)
            table.copy_(ranks.sum(table) / ranks.count)
        self.seen.copy_(ranks.sum(self.seen.float()) > 0)


def label_statistics(values_BHW: Tensor, labels_BHW: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean and population variance of values over the pixels of each label: (B, K, 2), and their number: (B, K).

    Example:
        >>> values, labels = torch.tensor([[[1.0, 3.0, 5.0]]]), torch.tensor([[[0, 0, 255]]])
        >>> label_statistics(values, labels, 2)[0][0]
        tensor([[2., 1.],
                [0., 0.]])
    """
    values, labels = values_BHW.flatten(1), labels_BHW.flatten(1)
    counted = labels != IGNORE
    place = labels.where(counted, classes)
    zeros = values.new_zeros(len(values), classes + 1)
    pixels = zeros.scatter_add(1, place, counted.to(values))
    means = zeros.scatter_add(1, place, values) / pixels.clamp(min=1)
    deviations = (values - means.gather(1, place)).square()
    variances = zeros.scatter_add(1, place, deviations) / pixels.clamp(min=1)
    return torch.stack([means, variances], dim=2)[:, :classes], pixels[:, :classes]


def label_sums(features_BCHW: Tensor, labels_BHW: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sum over the pixels of each label of the features resized to the labels: (K, C), and the number of pixels: (K,).

    The features are not resized: the bilinear weights of each labelled pixel are added up at its four feature pixels, so
    memory is that of the features, not of the full-size map.

    Args:
        features_BCHW: at any size.
        labels_BHW: int64, 255 ignored.
    """
    batch, _, height, width = features_BCHW.shape
    features = features_BCHW.to(torch.promote_types(features_BCHW.dtype, torch.float32))
    counted = labels_BHW != IGNORE
    place = labels_BHW.where(counted, classes)
    rows, columns = (_bilinear(n, m, features) for n, m in ((labels_BHW.shape[1], height), (labels_BHW.shape[2], width)))
    image = torch.arange(batch, device=features.device).view(-1, 1, 1) * (classes + 1)
    share = features.new_zeros(batch * (classes + 1) * height * width)
    for row, row_weight in rows:
        for column, column_weight in columns:
            index = ((image + place) * height + row.view(1, -1, 1)) * width + column.view(1, 1, -1)
            weight = (row_weight.view(-1, 1) * column_weight).expand_as(labels_BHW)
            share.index_add_(0, index.flatten(), weight.flatten())
    share_BKN = share.view(batch, classes + 1, height * width)[:, :classes]
    sums = torch.einsum("bkn,bcn->kc", share_BKN, features.flatten(2))
    pixels = features.new_zeros(classes + 1).index_add_(0, place.flatten(), counted.to(features).flatten())
    return sums, pixels[:classes]


def _bilinear(length: int, source: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each of `length` pixels of a resized axis (corners not aligned): the two source pixels and their weights."""
    centre = (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) * (source / length) - 0.5
    centre = centre.clamp(min=0)
    lower = centre.floor().long().clamp(max=source - 1)
    upper = (lower + 1).clamp(max=source - 1)
    share = centre - lower
    return [(lower, 1 - share), (upper, share)]
