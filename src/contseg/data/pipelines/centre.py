"""The centre of an image: the crop of evaluation, and for training the same with flips."""

from dataclasses import dataclass

import numpy as np

from contseg.data.limits import max_pixels
from contseg.data.pipelines.sample import (
    Layers,
    Pipeline,
    Sample,
    Size,
    cut_layers,
    resize_image,
    resize_layers,
    sides,
    swap_sides,
)
from contseg.errors import ContsegError


def centre_crop(image: np.ndarray, layers: Layers, size: tuple[int, int], key: str, way: str = "") -> Sample:
    """Resize image and labels to the smallest size that covers the crop, and cut its centre.

    Args:
        size: (height, width) of the crop.
        key: of the recipe, with its value, for the error.
        way: what else can be done about it.

    Raises:
        ContsegError: a very elongated image has more than `max_pixels` after resizing.
    """
    height, width = image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    tall, wide = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    if tall * wide > (most := max_pixels()):
        raise ContsegError(
            f"{width}x{height} resized for {key} is {wide}x{tall}, more than {most} pixels; leave this image out{way}"
        )
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    window = np.s_[top : top + size[0], left : left + size[1]]
    pixels = resize_image(image, tall, wide)[:, window[0], window[1]]
    return pixels, cut_layers(resize_layers(layers, tall, wide), window)


@dataclass(frozen=True)
class CentreCrop:
    """Evaluation as in MiB and PLOP: image and labels are resized so that the shorter side fits, and cropped at the centre.

    Raises (called):
        ContsegError: a very elongated image has more than `max_pixels` after resizing.
    """

    size: int

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator | None = None) -> Sample:
        key = f"data.test_crop={self.size}"
        return centre_crop(image, layers, (self.size, self.size), key, ", or set data.test_crop=null")


@dataclass(frozen=True)
class CentreFlip:
    """Pipeline `centre`: the centre crop of evaluation; flipped half the time.

    A crop depends on its image and the flip alone, so that features of a frozen network can be kept
    (`training.features`).

    Args:
        size: of the crop in pixels: a side, or (height, width).
        flip, mirror: as in `RandomResizedCrop`.

    Raises (called):
        ContsegError: a very elongated image has more than `max_pixels` after resizing.

    Example:
        >>> image, layers = np.zeros((20, 30, 3), np.uint8), {"mask": np.ones((20, 30), np.uint8)}
        >>> CentreFlip((8, 16))(image, layers, np.random.default_rng(0))[0].shape
        torch.Size([3, 8, 16])
    """

    size: Size
    flip: float = 0.5
    mirror: tuple[tuple[int, int], ...] = ()

    def mirrored(self, rng: np.random.Generator) -> bool:
        """Whether a call with this generator flips."""
        return bool(rng.random() < self.flip)

    def __call__(self, image: np.ndarray, layers: Layers, rng: np.random.Generator) -> Sample:
        pixels, layers = centre_crop(image, layers, sides(self.size), f"data.pipeline=centre with data.crop={self.size}")
        if not self.mirrored(rng):
            return pixels, layers
        return pixels.flip(2), swap_sides(cut_layers(layers, np.s_[:, ::-1]), self.mirror)


def variants(pipeline: Pipeline) -> tuple[bool, ...]:
    """The ways in which a pipeline cuts an image, by whether it is flipped; () if a crop is drawn anew in every epoch.

    A pipeline has such variants if it is a dataclass with the field `flip` and the method `mirrored`, as `CentreFlip`.

    Example:
        >>> from contseg.data.pipelines.augment import RandomResizedCrop
        >>> variants(CentreFlip(8)), variants(CentreFlip(8, flip=0)), variants(RandomResizedCrop(8))
        ((False, True), (False,), ())
    """
    flip = getattr(pipeline, "flip", None)
    if flip is None or not hasattr(pipeline, "mirrored"):
        return ()
    return tuple(mirrored for mirrored in (False, True) if (flip if mirrored else 1 - flip) > 0)
