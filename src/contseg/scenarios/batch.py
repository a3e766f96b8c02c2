"""Samples with the label map of a step, and batches of their crops: the data that a method receives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contseg.data.dataset import SegmentationDataset, size
from contseg.data.files import read_mask
from contseg.data.pipelines.sample import Layers
from contseg.data.recoding import look_up
from contseg.errors import ContsegError
from contseg.scenarios.policy import without_salience


@dataclass(frozen=True)
class Samples:
    """A list of samples of a dataset with the label map of one step.

    Args:
        dataset: reads images and masks.
        names: sample names, in list order.
        lookup: (65536,) uint8, training id of every mask value.
        annotated: (outputs so far,) bool, classes that are annotated in these samples. A background label hides only
            classes that are not annotated. For training samples, an "unknown" output is included, as in their labels.
        saliency: folder of saliency maps, NAME.png; unknown becomes background where the map is 0.
        things: (labels,) bool, the training ids whose objects are distinguished; None without a layer of instances.
    """

    dataset: SegmentationDataset
    names: tuple[str, ...]
    lookup: np.ndarray
    annotated: np.ndarray
    saliency: Path | None = None
    things: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[np.ndarray, Layers]:
        """Image (H, W, 3) uint8 and label layers (H, W): `mask` in dataset ids, `instances` if the dataset has them, and
        `saliency` if there are maps.

        Raises:
            ContsegError: a file is missing or unreadable, or its size differs from the image's.
        """
        image, layers = self.dataset.read_layers(self.names[index])
        if self.saliency is None:
            return image, layers
        path = self.saliency / f"{self.names[index]}.png"
        salient, mask = read_mask(path), layers["mask"]
        if salient.shape != mask.shape:
            raise ContsegError(f"{path}: saliency map is {size(salient)} but its image is {size(mask)}; they must be equal")
        return image, layers | {"saliency": salient}

    def labels(self, layers: Layers) -> np.ndarray:
        """Training ids (H, W) uint8 from label layers, usually of a crop.

        Example:
            >>> samples = Samples(None, ("a",), np.array([0, 2, *[255] * 65534], np.uint8), np.array([False, True, True]))
            >>> mask = np.array([[0, 0, 1]], np.uint8)
            >>> samples.labels({"mask": mask}), samples.labels({"mask": mask, "saliency": mask})
            (array([[0, 0, 2]], dtype=uint8), array([[1, 1, 2]], dtype=uint8))
        """
        labels = look_up(self.lookup, layers["mask"])
        return without_salience(labels, layers["saliency"]) if "saliency" in layers else labels

    def instances(self, layers: Layers, labels: np.ndarray) -> np.ndarray | None:
        """Numbers of the objects (H, W) uint16, None without a layer of instances.

        They are 0 wherever the label is no thing of these samples: the outlines of objects of other classes, which
        background hides, are hidden too.

        Args:
            layers: label layers, usually of a crop.
            labels: (H, W) uint8, of `labels`.

        Example:
            >>> things = np.array([False, False, True])
            >>> samples = Samples(None, ("a",), np.arange(65536).astype(np.uint8), np.ones(3, bool), things=things)
            >>> numbers = np.array([[4, 5, 6, 7]], np.uint16)
            >>> samples.instances({"instances": numbers}, np.array([[0, 1, 2, 255]], np.uint8))
            array([[0, 0, 6, 0]], dtype=uint16)
        """
        if self.things is None or "instances" not in layers:
            return None
        shown = np.zeros(256, dtype=np.uint8)
        shown[: len(self.things)] = self.things
        return layers["instances"] * look_up(shown, labels)


@dataclass(frozen=True)
class Pool:
    """Samples with different label maps as one list: the images of a step, followed by the parts of its memory.

    Example:
        >>> part = Samples(None, ("a", "b"), np.zeros(65536, np.uint8), np.array([True]))
        >>> pool = Pool((part, part))
        >>> len(pool), pool.locate(2)[1]
        (4, 0)
    """

    parts: tuple[Samples, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def locate(self, index: int) -> tuple[Samples, int]:
        """The part that contains sample `index`, and its position there."""
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(f"sample index out of range: the pool has {len(self)} samples")


@dataclass(frozen=True)
class Held:
    """Features of the samples of a batch that were computed before (`training.features`).

    Args:
        student: by point of `contseg.models.from_features.FromFeatures`, (B, C, h, w).
        teacher: the teacher's output by tap, with its `logits`; {} without a teacher.
    """

    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor] = field(default_factory=dict)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Held":
        """All features, changed; what student and teacher share is changed once."""
        done: dict[int, Tensor] = {}

        def changed(value: Tensor) -> Tensor:
            if id(value) not in done:
                done[id(value)] = change(value)
            return done[id(value)]

        parts = ({name: changed(value) for name, value in part.items()} for part in (self.student, self.teacher))
        return Held(*parts)


@dataclass(frozen=True)
class Batch:
    """B samples of H x W pixels.

    Args:
        images: (B, 3, H, W) uint8, RGB; on the device `meta`, where there are no values, if `held` replaces them.
        labels: (B, H, W) int64 training ids, 255 ignored.
        names: B sample names, for messages.
        annotated: (B, K) bool, whether the class of each of the K outputs so far is annotated in the sample.
        weights: (B,) factors of the samples' supervised losses; None: 1 (set by a method's `relabel`).
        held: features of the samples, or None.
        instances: (B, H, W) int32, the number of the object that a pixel of a thing belongs to, from 1, or `CROWD`
            (`contseg.data.segments`); 0 elsewhere. None without a layer of instances.
        targets: for networks that classify masks, outputs (T,) and masks (T, H, W) bool of each image, with pseudo labels:
            see `contseg.scenarios.segments.with_targets`. None: they follow from labels and `annotated`.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    annotated: Tensor
    weights: Tensor | None = None
    held: Held | None = None
    instances: Tensor | None = None
    targets: tuple[tuple[Tensor, Tensor], ...] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.labels.shape[-2]), int(self.labels.shape[-1])

    def relabelled(self, labels_BHW: Tensor, weights_B: Tensor | None = None) -> "Batch":
        """This batch with new labels and weights."""
        return replace(self, labels=labels_BHW, weights=weights_B, targets=None)

    def to(self, device: torch.device) -> "Batch":
        """This batch on a device, with images channels-first in memory; copies are non-blocking."""
        return replace(
            self,
            images=self.images if self.images.is_meta else self.images.to(device, non_blocking=True).contiguous(),
            labels=self.labels.to(device, non_blocking=True).long(),
            annotated=self.annotated.to(device, non_blocking=True),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=True),
            held=self.held.each(lambda value: value.to(device, non_blocking=True)) if self.held else None,
            instances=None if self.instances is None else self.instances.to(device, non_blocking=True),
        )

    def rows(self, kept: Sequence[int]) -> "Batch":
        """Some of the samples, by position."""
        chosen = list(kept)
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            names=tuple(self.names[place] for place in chosen),
            annotated=self.annotated[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            held=self.held.each(lambda value: value[chosen]) if self.held else None,
            instances=None if self.instances is None else self.instances[chosen],
            targets=None if self.targets is None else tuple(self.targets[place] for place in chosen),
        )

    def pin_memory(self) -> "Batch":
        """This batch in pinned memory, from which a GPU copies without waiting. PyTorch's loaders call it by this name."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of this batch, which another stream of the GPU has filled, until `stream` has used it."""
        self._mapped(lambda tensor: tensor.record_stream(stream))

    def _mapped(self, change: Callable[[Tensor], Any]) -> "Batch":
        weights = None if self.weights is None else change(self.weights)
        return replace(
            self,
            images=change(self.images),
            labels=change(self.labels),
            annotated=change(self.annotated),
            weights=weights,
            held=self.held.each(change) if self.held else None,
            instances=None if self.instances is None else change(self.instances),
        )

    @classmethod
    def stack(
        cls,
        images: Sequence[Tensor],
        labels: Sequence[np.ndarray],
        names: Sequence[str],
        annotated: Sequence[np.ndarray],
        instances: Sequence[np.ndarray | None] = (),
    ) -> "Batch":
        """A batch from samples. Labels stay uint8 and images keep their memory layout until they are on the device, which
        converts them faster than the loader.
        """
        planes = images[0].is_contiguous()
        return cls(
            torch.stack(list(images))
            if planes
            else torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack(labels)),
            tuple(names),
            torch.from_numpy(np.stack(annotated)),
            instances=_stacked(instances),
        )


def _stacked(instances: Sequence[np.ndarray | None]) -> Tensor | None:
    """The numbers of objects of a batch, int32, as PyTorch computes little with uint16; None if a sample has none."""
    there = [numbers for numbers in instances if numbers is not None]
    if not there or len(there) < len(instances):
        return None
    return torch.from_numpy(np.stack(there).astype(np.int32))
