"""What a method sees of the data: samples as labelled crops, stacked into batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from contseg.data.dataset import SegmentationDataset


@dataclass(frozen=True)
class Samples:
    """A list of samples of a dataset with the label map of one step.

    Args:
        dataset: where images and masks are read.
        names: which, in list order.
        lookup: (65536,) uint8, training id of every mask value.
        annotated: (classes seen,) bool: which classes an annotator marked in these samples. A background label hides
            only classes that are not annotated.
    """

    dataset: SegmentationDataset
    names: tuple[str, ...]
    lookup: np.ndarray
    annotated: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 and the mask still in dataset ids (the label map comes after cropping)."""
        return self.dataset.read(self.names[index])


@dataclass(frozen=True)
class Batch:
    """B samples of H x W pixels.

    Args:
        images: (B, 3, H, W) uint8, RGB.
        labels: (B, H, W) int64 training ids, 255 ignored.
        names: B names, for messages.
        annotated: (B, K) bool, which of the K classes seen so far were annotated in each sample.
        weights: (B,) factor of each sample's supervised loss, or None for 1 (a method's `relabel` sets it).
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    annotated: Tensor
    weights: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.labels.shape[-2]), int(self.labels.shape[-1])

    def relabelled(self, labels_BHW: Tensor, weights_B: Tensor | None = None) -> "Batch":
        """This batch with the method's final labels."""
        return replace(self, labels=labels_BHW, weights=weights_B)

    def to(self, device: torch.device) -> "Batch":
        """This batch on a device; copies do not block."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True).long(),
            annotated=self.annotated.to(device, non_blocking=True),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=True),
        )

    @classmethod
    def stack(
        cls, images: Sequence[Tensor], labels: Sequence[np.ndarray], names: Sequence[str], annotated: Sequence[np.ndarray]
    ) -> "Batch":
        """A batch from samples: labels stay uint8 until they reach the device."""
        return cls(
            torch.stack(list(images)),
            torch.from_numpy(np.stack(labels)),
            tuple(names),
            torch.from_numpy(np.stack(annotated)),
        )
