"""Pictures of segments: a colour per object, and lines between them."""

import numpy as np

from contseg.data.segments import SegmentMap, segment_keys
from contseg.data.textures import GOLDEN
from contseg.report.figures import IGNORED

SPREAD = 0.8
"""How far the colours of objects go from that of their class towards white and black."""


def segment_colours(segments: SegmentMap, colours: np.ndarray, things: np.ndarray) -> np.ndarray:
    """The segments as a picture (H, W, 3) uint8.

    Stuff has the colour of its class, and so has the first object of a class; the others have lighter and darker tones.
    Pixels of no class are grey.

    Args:
        colours: (K, 3) uint8, of the classes.
        things: (K,) bool, classes with objects.

    Example:
        >>> two = SegmentMap(np.array([[0, 1, 1, 255]]), np.array([[0, 1, 2, 0]]))
        >>> segment_colours(two, np.array([[0, 0, 200], [100, 0, 0]], np.uint8), np.array([False, True]))[0].tolist()
        [[0, 0, 200], [100, 0, 0], [115, 24, 24], [225, 225, 225]]
    """
    keys, place = np.unique(segment_keys(segments, things), return_inverse=True)
    classes = keys >> 32
    known = classes >= 0
    base = np.where(known[:, None], colours[np.where(known, classes, 0)], IGNORED).astype(float)
    order = np.arange(len(keys)) - np.searchsorted(classes, classes)  # of the objects of a class
    tone = np.where(order > 0, SPREAD * ((order * GOLDEN) % 1 - 0.5), 0)[:, None]
    found = base + np.abs(tone) * (np.where(tone > 0, 255, 0) - base)
    return found.round().astype(np.uint8)[place.reshape(segments.classes.shape)]


def boundaries(segments: SegmentMap, things: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is of another segment: (H, W) bool.

    Example:
        >>> boundaries(SegmentMap(np.array([[1, 1, 1]]), np.array([[4, 4, 5]])), np.array([False, True]))
        array([[False,  True, False]])
    """
    keys = segment_keys(segments, things)
    found = np.zeros(keys.shape, dtype=bool)
    found[:, :-1] |= keys[:, :-1] != keys[:, 1:]
    found[:-1] |= keys[:-1] != keys[1:]
    return found


def draw_segments(
    image: np.ndarray, segments: SegmentMap, colours: np.ndarray, things: np.ndarray, share: float = 0.5
) -> np.ndarray:
    """The image under its segments, with white lines between them: (H, W, 3) uint8.

    Args:
        image: (H, W, 3) uint8; where there is no segment it stays as it is.
        colours, things: as of `segment_colours`.
        share: of the colours of segments.
    """
    own = segment_colours(segments, colours, things)
    inside = ((segments.classes >= 0) & (segments.classes < len(things)))[..., None]
    mixed = np.where(inside, (1 - share) * image + share * own, image)
    return np.where(boundaries(segments, things)[..., None], 255, mixed).round().astype(np.uint8)
