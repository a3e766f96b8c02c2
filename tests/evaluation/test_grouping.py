"""Images of equal size are predicted together; every sample is used once, and few wait."""

import torch

from contseg.evaluation.grouping import WAITING, in_equal_sizes
from contseg.scenarios.batch import Batch


def batch_of(name: str, width: int, count: int = 1) -> Batch:
    images = torch.full((count, 3, 4, width), ord(name[0]), dtype=torch.uint8)
    return Batch(images, images[:, 0].long(), (name,) * count, torch.ones(count, 2, dtype=torch.bool))


def test_every_sample_comes_once_with_its_own_labels_in_batches_of_one_size():
    read = [batch_of(name, 4 + index % 3) for index, name in enumerate("abcdefghijkl")]
    found = list(in_equal_sizes(read, 3))
    assert sorted(name for batch in found for name in batch.names) == sorted("abcdefghijkl")
    assert [len(batch.names) for batch in found] == [3, 3, 3, 1, 1, 1]
    for batch in found:
        assert batch.images[:, 0, 0, 0].tolist() == batch.labels[:, 0, 0].tolist() == [ord(name) for name in batch.names]


def test_with_one_image_together_batches_stay_as_they_are():
    read = [batch_of("a", 4), batch_of("b", 5, count=2)]
    assert all(one is other for one, other in zip(in_equal_sizes(iter(read), 1), read, strict=True))


def test_few_images_wait_for_their_size():
    taken = 0

    def reading():
        nonlocal taken
        for width in range(4, 104):
            taken += 1
            yield batch_of("a", width)

    given, most = 0, 0
    for batch in in_equal_sizes(reading(), 4):
        given += len(batch.names)
        most = max(most, taken - given)
    assert given == taken == 100
    assert most < WAITING * 4


def test_progress_is_told_once_for_each_batch_that_was_read():
    told = []
    list(in_equal_sizes([batch_of("a", 4 + index % 2) for index in range(7)], 3, lambda: told.append(1)))
    assert len(told) == 7
