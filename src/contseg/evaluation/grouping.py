"""Batches of images of equal size from images as they are read."""

from collections.abc import Callable, Iterable, Iterator

import torch

from contseg.scenarios.batch import Batch

WAITING = 8
"""Multiple of the batch size: so many images wait at most until others of their size come."""


def in_equal_sizes(batches: Iterable[Batch], count: int, on_batch: Callable[[], None] | None = None) -> Iterator[Batch]:
    """The same samples in batches of `count` of equal size, in another order. Larger batches stay as they are.

    Images wait for others of their size. If `WAITING` batches would be full, the largest group is not waited for any more.

    Args:
        count: images per batch; with 1 all batches stay as they are.
        on_batch: called for each batch that was read, after samples that came with it or before it were used.

    Example:
        >>> one, other = (torch.zeros(1, 3, 4, side, dtype=torch.uint8) for side in (4, 6))
        >>> def batch(images):
        ...     return Batch(images, images[:, 0].long(), ("a",), torch.ones(1, 2, dtype=torch.bool))
        >>> [tuple(found.images.shape) for found in in_equal_sizes(map(batch, [one, other, one, one]), 2)]
        [(2, 3, 4, 4), (1, 3, 4, 6), (1, 3, 4, 4)]
    """
    groups: dict[tuple[int, ...], list[Batch]] = {}
    for batch in batches:
        if len(batch.names) >= count:
            yield batch
        else:
            size = (*batch.images.shape[1:], batch.annotated.shape[1])
            group = groups.setdefault(size, [])
            group.append(batch)
            if _images(group) >= count:
                yield _joined(groups.pop(size))
            elif sum(map(_images, groups.values())) >= WAITING * count:
                yield _joined(groups.pop(max(groups, key=lambda size: _images(groups[size]))))
        if on_batch:
            on_batch()
    yield from map(_joined, groups.values())


def _images(batches: list[Batch]) -> int:
    return sum(len(batch.names) for batch in batches)


def _joined(batches: list[Batch]) -> Batch:
    instances = [batch.instances for batch in batches if batch.instances is not None]
    return Batch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        tuple(name for batch in batches for name in batch.names),
        torch.cat([batch.annotated for batch in batches]),
        instances=torch.cat(instances) if len(instances) == len(batches) else None,
    )
