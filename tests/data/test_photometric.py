"""Colours change within their ranges, step by step in whole grey levels, and by nothing but the generator."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.data.pipelines.photometric import distort, to_hsv, turn_hsv

QUICK = settings(max_examples=60, deadline=None)


def noise(seed=0, shape=(3, 40, 50)):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


class Told:
    """A generator whose draws are given: coins in order, then the amounts."""

    def __init__(self, coins, amounts):
        self.coins, self.amounts, self.ranges = list(coins), list(amounts), []

    def random(self):
        return 0.0 if self.coins.pop(0) else 1.0

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return self.amounts.pop(0)

    def integers(self, low, high):
        self.ranges.append((low, high - 1))
        return self.amounts.pop(0)


def test_hsv_is_that_of_the_standard_library_in_opencvs_units():
    pixels = noise(shape=(3, 20, 30))
    hues, saturations, values = to_hsv(pixels)
    assert hues.min() >= 0
    assert hues.max() <= 179
    for row in range(20):
        for column in range(30):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[:, row, column].double() / 255).tolist())
            assert abs((hues[row, column] - 180 * hue + 90) % 180 - 90) <= 0.5 + 1e-3
            assert abs(saturations[row, column] - 255 * saturation) <= 0.5 + 1e-3
            assert values[row, column] == round(255 * value)


def test_there_and_back_costs_a_few_levels_of_whole_hues():
    pixels = noise(shape=(3, 200, 200))
    apart = (turn_hsv(pixels).int() - pixels.int()).abs().float()
    assert apart.mean() < 0.5
    assert (apart > 2).float().mean() < 0.05
    assert apart.max() <= 5, "a hue of 2 degrees is 8 levels of the strongest colour"
    grey = noise(shape=(1, 20, 20)).expand(3, -1, -1)
    assert torch.equal(turn_hsv(grey), grey)


@QUICK
@given(st.integers(-18, 18), st.integers(0, 10**6))
def test_a_turned_hue_keeps_value_and_grey(hue, seed):
    pixels = noise(seed)
    turned = turn_hsv(pixels, hue=hue)
    assert torch.equal(turned.amax(dim=0), pixels.amax(dim=0))
    assert (turned.amin(dim=0).int() - pixels.amin(dim=0).int()).abs().max() <= 1
    grey = pixels[:1].expand(3, -1, -1)
    assert torch.equal(turn_hsv(grey, hue=hue), grey)


def test_a_third_of_a_turn_exchanges_channels():
    pixels = torch.tensor([[[250, 10]], [[10, 10]], [[10, 250]]], dtype=torch.uint8)
    assert torch.equal(turn_hsv(pixels, hue=60), pixels[[2, 0, 1]])


def test_without_saturation_everything_is_grey_and_much_of_it_is_cut():
    pixels = noise()
    assert torch.equal(turn_hsv(pixels, saturation=0), pixels.amax(dim=0).expand(3, -1, -1))
    assert to_hsv(turn_hsv(pixels, saturation=1.5))[1].max() == 255


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130])
def test_any_height_is_covered(rows):
    pixels = noise(shape=(3, rows, 5))
    whole = torch.cat([turn_hsv(pixels[:, row : row + 1], 1.2, 7) for row in range(rows)], dim=1)
    assert torch.equal(turn_hsv(pixels, 1.2, 7), whole)


def test_no_coin_changes_nothing():
    pixels = noise()
    assert torch.equal(distort(pixels, Told([0, 0, 0, 0, 0], [])), pixels)


@pytest.mark.parametrize("delta", [-32.0, -7.6, 0.0, 7.6, 32.0])
def test_brightness_is_added_cut_and_truncated(delta):
    pixels, told = noise(), Told([1, 0, 0, 0, 0], [delta])
    expected = (pixels.double() + delta).clamp(0, 255).to(torch.uint8)
    assert torch.equal(distort(pixels, told), expected)
    assert told.ranges == [(-32, 32)]


@pytest.mark.parametrize("early", [0, 1])
@pytest.mark.parametrize("factor", [0.5, 0.83, 1.5])
def test_contrast_multiplies_before_or_after(early, factor):
    pixels, told = noise(), Told([1, early, 1, 0, 0], [20.5, factor])
    brighter = (pixels.double() + 20.5).clamp(0, 255).floor()
    assert torch.equal(distort(pixels, told), (brighter * factor).clamp(0, 255).to(torch.uint8))
    assert told.ranges == [(-32, 32), (0.5, 1.5)]


@pytest.mark.parametrize("early", [0, 1])
def test_late_contrast_comes_after_the_colours(early):
    pixels = noise()
    found = distort(pixels, Told([0, early, 1, 1, 1], [1.4, 1.3, 9]))

    def stronger(image):
        return (image.double() * 1.4).clamp(0, 255).to(torch.uint8)

    expected = turn_hsv(stronger(pixels), 1.3, 9) if early else stronger(turn_hsv(pixels, 1.3, 9))
    assert torch.equal(found, expected)
    assert not torch.equal(found, distort(pixels, Told([0, 1 - early, 1, 1, 1], [1.4, 1.3, 9])))


def test_hue_alone_leaves_saturation():
    pixels, told = noise(), Told([0, 0, 0, 0, 1], [-18])
    assert torch.equal(distort(pixels, told), turn_hsv(pixels, 1.0, -18))
    assert told.ranges == [(-18, 18)]


def test_the_generator_alone_decides_and_the_image_stays_as_it_was():
    pixels = noise()
    before = pixels.clone()
    outcomes = [distort(pixels, np.random.default_rng(seed)) for seed in (*range(30), *range(30))]
    assert torch.equal(pixels, before)
    assert all(torch.equal(first, again) for first, again in zip(outcomes[:30], outcomes[30:], strict=True))
    assert len({outcome.numpy().tobytes() for outcome in outcomes[:30]}) > 20


def test_interleaved_and_planar_images_come_out_the_same():
    pixels = noise()
    interleaved = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for seed in range(20):
        found = (distort(image, np.random.default_rng(seed)) for image in (pixels, interleaved))
        assert torch.equal(*found)
