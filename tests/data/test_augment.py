"""Crops keep image and mask aligned, draw from their generator alone, and are exactly one code base's.

The test image encodes coordinates: red is the column, green the row, so that the mask can say where a pixel came from.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contseg.data.pipelines.augment import (
    CentreCrop,
    Jitter,
    RandomResizedCrop,
    RandomScaleCrop,
    evaluation_pipeline,
    resize_image,
    resize_mask,
    training_pipeline,
)
from contseg.errors import ContsegError

QUICK = settings(max_examples=100, deadline=None)
sizes = st.tuples(st.integers(8, 120), st.integers(8, 120))


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of (column + 100, row + 100, 255), and masks of the same numbers."""
    rows, columns = np.mgrid[100 : 100 + height, 100 : 100 + width].astype(np.uint8)
    return np.stack([columns, rows, np.full_like(rows, 255)], axis=2), columns, rows


def seeded(pipeline, image, mask, seed):
    pixels, layers = pipeline(image, {"mask": mask}, np.random.default_rng(seed))
    return pixels.numpy().astype(int), layers["mask"].astype(int)


@QUICK
@given(sizes, st.sampled_from(["mib", "ssul"]), st.integers(4, 70), st.integers(0, 10**6))
def test_image_and_mask_stay_aligned(size, name, crop, seed):
    image, columns, rows = coordinates(*size)
    pipeline = training_pipeline(name, crop, flip=0.5)
    for channel, mask in enumerate((columns, rows)):
        pixels, ids = seeded(pipeline, image, mask, seed)
        shown = ids > 0
        # nearest against bilinear, up to a source pixel apart; shrunk edges are averaged over half a window
        assert np.abs(pixels[channel] - ids)[shown].max() <= 2 + max(size) / crop / 2


@QUICK
@given(sizes, st.sampled_from(["mib", "ssul"]), st.integers(4, 70), st.integers(0, 10**6))
def test_a_crop_has_the_asked_size_and_the_types_it_was_given(size, name, crop, seed):
    image, mask, _ = coordinates(*size)
    for kind in (np.uint8, np.uint16):
        layers = {"mask": mask.astype(kind)}
        pixels, layers = training_pipeline(name, crop, flip=0.5)(image, layers, np.random.default_rng(seed))
        ids = layers["mask"]
        assert pixels.shape == (3, crop, crop)
        assert str(pixels.dtype) == "torch.uint8"
        assert ids.shape == (crop, crop)
        assert ids.dtype == kind


@pytest.mark.parametrize("name", ["mib", "ssul"])
@pytest.mark.parametrize("jitter", [None, {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}])
def test_the_generator_alone_decides(name, jitter):
    image, mask, _ = coordinates(60, 80)
    pipeline = training_pipeline(name, 32, 0.5, jitter)
    first, again, other = (seeded(pipeline, image, mask, seed) for seed in (3, 3, 4))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("name", ["mib", "ssul"])
@pytest.mark.parametrize("seed", range(4))
def test_flip_never_and_always_are_mirror_images(name, seed):
    image, mask, _ = coordinates(60, 80)
    plain, flipped = (seeded(training_pipeline(name, 32, flip), image, mask, seed) for flip in (0.0, 1.0))
    assert np.array_equal(plain[0], flipped[0][:, :, ::-1])
    assert np.array_equal(plain[1], flipped[1][:, ::-1])
    columns = plain[1][:, plain[1].any(axis=0)][plain[1].any(axis=1)]
    assert (np.diff(columns, axis=1) >= 0).all(), "columns run left to right when never flipped"


@pytest.mark.parametrize("name", ["mib", "ssul"])
def test_over_many_draws_crops_lie_everywhere(name):
    image, columns, rows = coordinates(60, 90)
    pipeline = training_pipeline(name, 40, flip=0.0)
    for mask, side in ((columns, 90), (rows, 60)):
        shown = [seeded(pipeline, image, mask, seed)[1] for seed in range(60)]
        assert min(ids[ids > 0].min() for ids in shown) <= 102
        assert max(ids.max() for ids in shown) >= 97 + side
        middles = np.array([np.median(ids[ids > 0]) - 100 for ids in shown])
        assert (middles < side / 2 - 2).any()
        assert (middles > side / 2 + 2).any()


@QUICK
@given(sizes, st.integers(4, 70), st.integers(0, 10**6))
def test_mib_shows_a_part_of_the_image_and_nothing_outside(size, crop, seed):
    image, columns, rows = coordinates(*size)
    for channel, mask in enumerate((columns, rows)):
        pixels, ids = seeded(RandomResizedCrop(crop), image, mask, seed)
        assert np.isin(ids, mask).all()
        assert (pixels[2] == 255).all(), "no padding"
        assert pixels[channel].min() >= 100


@QUICK
@given(sizes, st.integers(0, 10**6))
def test_mib_windows_keep_area_and_aspect_in_bounds(size, seed):
    image, columns, rows = coordinates(*size)
    height, width = (np.ptp(seeded(RandomResizedCrop(256, flip=0), image, mask, seed)[1]) + 1 for mask in (rows, columns))
    # sides are rounded to whole pixels
    assert width - 0.5 <= 4 / 3 * (height + 0.5)
    assert height - 0.5 <= 4 / 3 * (width + 0.5)
    if 3 / 4 <= size[1] / size[0] <= 4 / 3:
        assert (height + 0.5) * (width + 0.5) >= 0.5 * size[0] * size[1]


@QUICK
@given(st.tuples(st.integers(8, 30), st.integers(8, 30)), st.integers(0, 10**6))
def test_ssul_pads_image_and_mask_with_zero_around_the_whole_image(size, seed):
    crop = 64
    image, mask, _ = coordinates(*size)
    pixels, ids = seeded(RandomScaleCrop(crop), image, mask, seed)
    assert np.array_equal(ids == 0, pixels[2] == 0)
    assert (pixels[:, ids == 0] == 0).all()
    shown = ids > 0
    assert shown.any()
    tall, wide = shown.any(axis=1).sum(), shown.any(axis=0).sum()
    assert shown.sum() == tall * wide, "one rectangle"
    assert 0.5 * size[0] - 1 <= tall <= 2 * size[0]
    top = int(shown.any(axis=1).argmax())
    assert abs(top - (crop - tall - top)) <= 1 or tall == crop, "padding is symmetric"


@QUICK
@given(sizes, sizes, st.integers(0, 10**6))
def test_resize_is_pillows_antialiased_bilinear_to_one_grey_level(size, target, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((target[1], target[0]), Image.Resampling.BILINEAR)).astype(int)
    found = resize_image(image, *target).permute(1, 2, 0).numpy().astype(int)
    apart = np.abs(found - expected)
    assert apart.max() <= 2
    assert (apart == 2).sum() <= 1 + apart.size / 1000, "two roundings, of rows and of columns, rarely add up"


@QUICK
@given(sizes, sizes)
def test_a_resized_mask_shows_the_id_under_each_pixel_centre(size, target):
    _, columns, rows = coordinates(*size)
    for axis, mask in ((0, rows), (1, columns)):
        found = np.moveaxis(resize_mask(mask, *target).astype(int) - 100, axis, 0)
        centres = (np.arange(target[axis]) + 0.5) * size[axis] / target[axis]
        assert np.abs(found + 0.5 - centres[:, None]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (33, 71), (20, 20)])
def test_centre_crop_shows_the_middle_of_the_shorter_side_resized(size):
    crop = 20
    image, columns, rows = coordinates(*size)
    pixels, layers = CentreCrop(crop)(image, {"columns": columns, "rows": rows})
    ids = layers["columns"]
    assert pixels.shape == (3, crop, crop)
    assert ids.shape == (crop, crop)
    for channel, mask in enumerate((columns, rows)):
        middle = layers[("columns", "rows")[channel]].mean()
        assert abs(middle - mask.mean()) <= 1.5
        assert abs(pixels[channel].float().mean() - middle) <= 1
    shown = np.ptp(layers["rows"]), np.ptp(ids)
    assert np.abs(np.array(shown) - (min(size) - min(size) / crop)).max() <= 1, "the shorter side is seen whole"


def test_whole_images_stay_as_they_are():
    image, mask, _ = coordinates(13, 21)
    pixels, layers = evaluation_pipeline(None)(image, {"mask": mask})
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), image)
    assert layers["mask"] is mask


def test_jitter_of_no_width_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    mask = np.zeros((20, 24), dtype=np.uint8)
    plain = RandomResizedCrop(16)
    assert np.array_equal(seeded(plain, image, mask, 5)[0], seeded(Jitter(plain), image, mask, 5)[0])


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation", "hue"])
def test_every_jitter_changes_colours_and_no_id(change):
    image = np.random.default_rng(0).integers(60, 200, (20, 24, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).integers(0, 9, (20, 24), dtype=np.uint8)
    plain = RandomResizedCrop(16)
    before, after = seeded(plain, image, mask, 5), seeded(Jitter(plain, **{change: 0.3}), image, mask, 5)
    assert not np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


@pytest.mark.parametrize("change", ["saturation", "hue", "contrast"])
def test_grey_stays_grey_under_saturation_hue_and_contrast(change):
    grey = np.repeat(np.random.default_rng(0).integers(60, 200, (16, 16, 1), dtype=np.uint8), 3, axis=2)
    pixels, _ = seeded(Jitter(RandomResizedCrop(16), **{change: 0.3}), grey, grey[..., 0], 2)
    assert np.ptp(pixels, axis=0).max() <= 1


def test_an_unknown_pipeline_is_told():
    with pytest.raises(ContsegError, match=r"data\.pipeline: unknown pipeline 'mbi'; did you mean 'mib'"):
        training_pipeline("mbi", 8, 0.5)


def test_a_picture_too_thin_for_the_test_crop_is_refused_before_memory_is_taken():
    thin = np.zeros((20_000, 1, 3), np.uint8)
    with pytest.raises(
        ContsegError, match=r"1x20000 resized for data.test_crop=512 is 512x10240000, more than 178956970 pixels"
    ):
        CentreCrop(512)(thin, {"mask": thin[..., 0]})


@pytest.mark.parametrize(("height", "width", "factor"), [(64, 128, 0.5), (128, 64, 0.5), (40, 40, 0.8), (64, 640, 0.2)])
def test_images_are_fitted_into_a_box_before_they_are_scaled(height, width, factor):
    """By the factor with which the short side is 32 pixels and the long one at most 128."""
    image, mask, _ = coordinates(height, width)
    fitting = training_pipeline("ssul", 24, 0.5, scale=(0.5, 2.0), resize=(128, 32))
    scaling = RandomScaleCrop(24, 0.5, (0.5 * factor, 2.0 * factor))
    for seed in range(5):
        for found, expected in zip(*(seeded(each, image, mask, seed) for each in (fitting, scaling)), strict=True):
            assert np.array_equal(found, expected)
