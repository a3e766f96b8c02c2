"""Replayed features, and the distances of STAR and Adapter."""

import torch

from benchmarks.memory_bench import LiveBytes
from contseg.losses.replay import direction_sums, fake_features, masked_distance, prototype_contrast, sampled
from contseg.losses.uncertainty import uncertainty
from contseg.methods.feature_statistics import ClassSums, replay_sizes


def test_labels_of_a_map_that_does_not_divide_the_image_are_those_near_the_centres_of_its_cells():
    labels = torch.arange(513).view(1, 513, 1).expand(1, 513, 513)
    rows = sampled(labels, (33, 33))[0, :, 0]
    assert rows[:3].tolist() == [8, 24, 40]
    assert rows[-1] == 512


def test_drawn_features_have_the_statistics_that_they_are_drawn_from():
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.nn.functional.normalize(torch.rand(2, 16, generator=generator), dim=1)
    norms = torch.tensor([[5.0, 9.0], [0.5, 0.1]])
    counts = torch.tensor([4000, 3000])
    direction, length = torch.randn(7000, 16, generator=generator), torch.randn(7000, 1, generator=generator)
    drawn = fake_features(prototypes, torch.full((2, 16), 0.01), norms, counts, direction, length)
    sums = ClassSums(first=1, count=2)
    labels = torch.repeat_interleave(torch.tensor([1, 2]), counts)
    sums.add(drawn.T[None, :, :, None], labels[None, :, None])
    torch.testing.assert_close(sums.prototypes.float(), prototypes, atol=2e-3, rtol=0)
    torch.testing.assert_close(sums.norms.float(), norms, atol=0.05, rtol=0)
    assert sums.numbers.tolist() == counts.tolist()


def test_statistics_do_not_depend_on_how_positions_are_divided_into_batches():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 6, 3, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (4, 3, 3), generator=generator)
    whole, parts = ClassSums(1, 3), ClassSums(1, 3)
    whole.add(features, labels)
    for number in range(4):
        parts.add(features[number : number + 1], labels[number : number + 1])
    for name in ("prototypes", "norms", "numbers"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name))
    torch.testing.assert_close(whole.noise(), parts.noise())


def test_a_class_without_positions_has_zeros_and_one_position_no_deviation():
    sums = ClassSums(first=1, count=2)
    sums.add(torch.full((1, 2, 1, 1), 3.0), torch.tensor([[[1]]]))
    assert sums.norms[1].tolist() == [0.0, 0.0]
    assert not sums.prototypes[1].any()
    assert not sums.noise()[1].any()
    assert sums.noise()[0].abs().max() < 1e-7


def test_what_the_images_of_a_step_hold_enough_of_is_not_replayed():
    sizes = replay_sizes(torch.tensor([10.0, 50.0, 5.0]), torch.tensor([0.0, 20.0, 9.0]), 1, 10, "overlapped")
    assert sizes.counts.tolist() == [3, 0]
    assert sizes.background > 0  # no position at all is background: finite


def test_an_empty_mask_and_no_known_class_give_zero_with_a_gradient():
    features = torch.ones(1, 2, 2, 2, requires_grad=True)
    loss = masked_distance(features, torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2))
    contrast = prototype_contrast(features.flatten(2).sum(dim=2), torch.zeros(3, 2))
    (loss + contrast).backward()
    assert loss == contrast == 0
    assert not features.grad.any()


def test_only_the_second_class_of_an_unsure_pixel_has_a_gradient():
    logits = torch.tensor([[0.3, 0.1, -1.0], [3.0, 0.1, -1.0]]).T.view(1, 3, 1, 2).requires_grad_()
    uncertainty(logits, torch.zeros(1, 1, 2, dtype=torch.int64)).sum().backward()
    assert (logits.grad != 0).flatten().tolist() == [False, False, True, False, False, False]


def statistics_of(features, labels):
    sums = ClassSums(first=1, count=5)
    sums.add(features, labels)
    direction_sums(features.requires_grad_(), torch.rand(2, 5, *labels.shape[1:])).sum().backward()


def test_memory_of_statistics_is_linear_in_positions():
    peaks = {}
    for side in (32, 64, 128):
        features, labels = torch.randn(2, 16, side, side), torch.randint(0, 6, (2, side, side))
        with LiveBytes() as counted:
            statistics_of(features, labels)
        peaks[side] = counted.peak
    assert 0 < peaks[64] <= 4.1 * peaks[32]
    assert peaks[128] <= 4.1 * peaks[64]
