"""The pipelines of SSSegmentation: image and mask move together, windows are chosen by the class rule, flips rename."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.data.pipelines import ssseg
from contseg.data.pipelines.augment import training_pipeline
from contseg.data.pipelines.ssseg import MEAN_COLOUR, FreeResizeCrop, KeepRatioCrop
from contseg.errors import ContsegError

QUICK = settings(max_examples=60, deadline=None)
sizes = st.tuples(st.integers(12, 90), st.integers(12, 90))
crops = st.one_of(st.integers(8, 60), st.tuples(st.integers(8, 60), st.integers(8, 60)))
names = st.sampled_from(["ssseg", "ssseg-lip"])
MEAN = np.array(MEAN_COLOUR)[:, None, None]


@pytest.fixture
def plain_colours(monkeypatch):
    monkeypatch.setattr(ssseg, "distort", lambda pixels, rng: pixels)


def halves(height, width, ids=(1, 2), kind=np.uint8):
    """The left half in grey 0, the right in 200; ids to match."""
    mask = np.full((height, width), ids[0], dtype=kind)
    mask[:, width // 2 :] = ids[1]
    return np.repeat(np.where(mask == ids[1], 200, 0).astype(np.uint8)[..., None], 3, axis=2), mask


def cut(pipeline, image, mask, seed=0):
    pixels, layers = pipeline(image, {"mask": mask}, np.random.default_rng(seed))
    return pixels.numpy().astype(int), layers["mask"]


def shape_of(size, crop):
    return (crop, crop) if isinstance(crop, int) else crop


@QUICK
@given(sizes, crops, names, st.integers(0, 10**6), st.sampled_from([np.uint8, np.uint16]))
def test_shapes_types_and_no_new_ids(size, crop, name, seed, kind):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = rng.integers(1, 6, size).astype(kind)
    pixels, layers = training_pipeline(name, crop, 0.5, resize=(70, 50))(image, {"mask": mask}, rng)
    ids = layers["mask"]
    assert pixels.dtype == torch.uint8
    assert ids.dtype == kind
    assert pixels.shape[1:] == ids.shape
    assert ids.shape in (shape_of(size, crop), shape_of(size, crop)[::-1])
    assert set(np.unique(ids)) <= {1, 2, 3, 4, 5, 255}


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(12, 60), names, st.integers(0, 10**6))
def test_colour_tells_the_id(size, crop, name, seed):
    image, mask = halves(*size)
    pipeline = training_pipeline(name, crop, 0.5, resize=(70, 50))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssseg, "distort", lambda pixels, rng: pixels)
        pixels, ids = cut(replace(pipeline, turn=0.0), image, mask, seed)
    assert (pixels[:, ids == 255] == MEAN.reshape(3, 1)).all()
    inner = (ids[:, 1:] == ids[:, :-1])[:, 1:] & (ids[:, 1:] == ids[:, :-1])[:, :-1]
    far = np.zeros_like(ids, dtype=bool)
    reach = 3  # a blurred edge is a source pixel wide, up to 2.5 pixels when enlarged most
    far[:, reach:-reach] = inner[:, reach - 1 : -reach + 1] & np.logical_and.reduce(
        [ids[:, reach:-reach] == np.roll(ids, way, axis=1)[:, reach:-reach] for way in range(-reach, reach + 1)]
    )
    scale = max(ids.shape) / min(size)
    if scale < 2.5:
        assert (pixels[0][far & (ids == 1)] <= 100).all()
        assert (pixels[0][far & (ids == 2)] >= 100).all()


@pytest.mark.parametrize("name", ["ssseg", "ssseg-lip"])
def test_the_generator_alone_decides(name):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), rng.integers(0, 5, (50, 70), dtype=np.uint8)
    pipeline = training_pipeline(name, 32, 0.5, resize=(60, 40))
    for first, again in zip(cut(pipeline, image, mask, 3), cut(pipeline, image, mask, 3), strict=True):
        assert np.array_equal(first, again)
    assert not np.array_equal(cut(pipeline, image, mask, 3)[0], cut(pipeline, image, mask, 4)[0])


@pytest.mark.parametrize(
    ("size", "resize", "scale", "expected"),
    [
        ((375, 500), (2048, 512), 1.0, (512, 683)),  # the short side decides
        ((500, 375), (2048, 512), 1.0, (683, 512)),
        ((100, 1000), (2048, 512), 1.0, (205, 2048)),  # the long side decides
        ((1024, 2048), (2048, 1024), 0.5, (512, 1024)),
        ((375, 500), (520, 520), 1.999, (779, 1039)),
    ],
)
def test_images_keep_their_aspect_and_fit_the_box(size, resize, scale, expected):
    assert KeepRatioCrop(8, resize=resize)._resized(*size, scale) == expected


def test_people_are_resized_to_the_box_whatever_their_aspect():
    assert FreeResizeCrop(8)._resized(300, 100, 1.25) == (650, 650)
    assert FreeResizeCrop(8, resize=(60, 40))._resized(300, 100, 1.0) == (60, 40)
    assert FreeResizeCrop(8, resize=(60, 40))._resized(100, 300, 1.0) == (40, 60)


@QUICK
@given(st.integers(0, 10**6), st.integers(20, 60))
def test_a_window_shows_two_classes_and_none_on_more_than_three_quarters(seed, place):
    mask = np.ones((80, 80), dtype=np.uint8)
    mask[:, place:] = 2
    window = mask[KeepRatioCrop(40)._window(mask, np.random.default_rng(seed))]
    shares = np.bincount(window.ravel(), minlength=3)[1:] / window.size
    drawn = (np.bincount(mask[w].ravel(), minlength=3)[1:].max() for w in every_draw(mask, 40, seed))
    assert window.shape == (40, 40)
    if any(most <= 0.75 * 1600 for most in drawn):
        assert shares.max() <= 0.75


def every_draw(mask, side, seed):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        top, left = int(rng.integers(mask.shape[0] - side + 1)), int(rng.integers(mask.shape[1] - side + 1))
        yield np.s_[top : top + side, left : left + side]


@pytest.mark.parametrize("seed", range(5))
def test_of_one_class_the_last_draw_counts(seed):
    mask = np.ones((80, 70), dtype=np.uint8)
    *_, last = every_draw(mask, 40, seed)
    assert KeepRatioCrop(40)._window(mask, np.random.default_rng(seed)) == last


@pytest.mark.parametrize(("void", "value"), [((), 255), ((7,), 7)])
def test_what_is_no_class_is_not_counted(void, value):
    rule = KeepRatioCrop(40, void=void)
    mask = np.full((80, 70), value, dtype=np.uint8)
    assert mask[rule._window(mask, np.random.default_rng(0))].shape == (80, 70), "no valid pixel: uncut"
    mask[:, ::8], mask[:, 4::8] = 1, 2
    first = next(every_draw(mask, 40, 0))
    assert rule._window(mask, np.random.default_rng(0)) == first, "two classes, each half of what is valid"


def test_an_image_without_valid_pixels_is_cut_in_its_middle(plain_colours):
    image = np.zeros((41, 41, 3), dtype=np.uint8)
    image[20, 20] = 255
    pixels, ids = cut(KeepRatioCrop(9, 0.0, (1.0, 1.0), (41, 41)), image, np.full((41, 41), 255, dtype=np.uint8))
    assert pixels[:, 4, 4].tolist() == [255, 255, 255]
    assert pixels.sum() == 3 * 255
    assert (ids == 255).all()


@pytest.mark.parametrize("upright", [False, True])
def test_a_rectangular_crop_turns_with_the_image(upright):
    image, mask = halves(60, 20) if upright else halves(20, 60)
    pixels, ids = cut(KeepRatioCrop((16, 32), resize=(60, 20), scale=(0.5, 0.5)), image, mask)
    assert ids.shape == ((32, 16) if upright else (16, 32))
    assert pixels.shape[1:] == ids.shape


@QUICK
@given(st.integers(10, 40), st.integers(10, 40), st.integers(0, 10**6))
def test_padding_is_mean_colour_and_ignored_around_the_middle(height, width, seed):
    image, mask = np.full((height, width, 3), 9, dtype=np.uint8), np.full((height, width), 3, dtype=np.uint8)
    side = 48
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssseg, "distort", lambda pixels, rng: pixels)
        pipeline = KeepRatioCrop(side, 0.0, (1.0, 1.0), (max(height, width), min(height, width)))
        pixels, ids = cut(pipeline, image, mask, seed)
    top, left = (side - height) // 2, (side - width) // 2
    expected = np.full((side, side), 255)
    expected[top : top + height, left : left + width] = 3
    assert np.array_equal(ids, expected)
    assert (pixels[:, ids == 3] == 9).all()
    assert (pixels[:, ids == 255] == MEAN.reshape(3, 1)).all()


@pytest.mark.parametrize("name", ["mib", "ssul", "ssseg", "ssseg-lip"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_flip_exchanges_left_and_right(name, kind, plain_colours):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), rng.integers(1, 7, (40, 60)).astype(kind)
    resize = (60, 40) if "ssseg" in name else None
    never, always = (
        cut(training_pipeline(name, 24, flip, resize=resize, mirror=((2, 3), (5, 6))), image, mask, 8) for flip in (0.0, 1.0)
    )
    renamed = np.array([0, 1, 3, 2, 4, 6, 5, *range(7, 256)])
    if name != "ssseg-lip":  # a rotation goes the other way round in a mirror
        assert np.array_equal(always[1], renamed[never[1][:, ::-1]])
        assert np.array_equal(always[0], never[0][:, :, ::-1])
        assert (always[1] == 3).any()


@pytest.mark.parametrize("name", ["mib", "ssul", "ssseg", "ssseg-lip"])
@pytest.mark.parametrize("seed", range(4))
def test_every_layer_is_cut_like_the_mask(name, seed):
    """Padding differs: 0 in all layers but the mask of `ssseg`."""
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), rng.integers(1, 7, (40, 60), dtype=np.uint8)
    resize = (60, 40) if "ssseg" in name else None
    pipeline = training_pipeline(name, 48, 0.5, resize=resize, mirror=((2, 3),))
    alone, alone_layers = pipeline(image, {"mask": mask}, np.random.default_rng(seed))
    layers = {"mask": mask, "saliency": (mask > 3).astype(np.uint8), "instances": 700 * mask.astype(np.uint16)}
    pixels, cut_layers = pipeline(image, layers, np.random.default_rng(seed))
    assert torch.equal(pixels, alone)
    assert np.array_equal(cut_layers["mask"], alone_layers["mask"])
    assert {one: layer.dtype for one, layer in cut_layers.items()} == {one: layer.dtype for one, layer in layers.items()}
    unnamed = cut_layers["instances"] // 700
    assert np.array_equal(cut_layers["saliency"] > 0, unnamed > 3)
    as_stored, exchanged = np.array([0, 1, 2, 3, 4, 5, 6]), np.array([0, 1, 3, 2, 4, 5, 6])
    shown = cut_layers["mask"] % 255
    assert any(np.array_equal(shown, names[unnamed]) for names in (as_stored, exchanged))


@pytest.mark.parametrize("seed", range(6))
def test_a_rotation_moves_both_and_fills_with_black_and_ignore(seed, plain_colours):
    image, mask = np.full((64, 64, 3), 200, dtype=np.uint8), np.full((64, 64), 2, dtype=np.uint8)
    pixels, ids = cut(FreeResizeCrop(64, 0.0, (1.0, 1.0), (64, 64), turn=1.0), image, mask, seed)
    assert set(np.unique(ids)) <= {2, 255}
    outside = ids == 255
    assert outside.sum() < ids.size / 2
    assert np.median(pixels[:, ~outside]) == 200
    if outside.sum() > 100:
        assert np.median(pixels[:, outside]) == 0
    assert outside[0, 0] == outside[-1, -1]


def test_rotations_are_drawn_as_often_as_asked(plain_colours):
    image, mask = np.full((32, 32, 3), 200, dtype=np.uint8), np.full((32, 32), 2, dtype=np.uint8)
    pipeline = FreeResizeCrop(32, 0.0, (1.0, 1.0), (32, 32))
    turned = sum((cut(pipeline, image, mask, seed)[1] == 255).any() for seed in range(300))
    assert 130 < turned < 215, "0.6 of them, less some small angles"


@pytest.mark.parametrize("key", ["scale", "resize"])
def test_a_setting_that_a_pipeline_does_not_have_is_told(key):
    with pytest.raises(ContsegError, match=rf"data\.{key}: pipeline mib has no such setting"):
        training_pipeline("mib", 8, 0.5, **{key: (1, 2)})


def test_settings_reach_the_pipeline():
    pipeline = training_pipeline("ssseg", [16, 32], 0.25, scale=[0.5, 1.5], resize=[60, 30], mirror=((1, 2),), void=(9,))
    assert pipeline == KeepRatioCrop((16, 32), 0.25, (0.5, 1.5), (60, 30), ((1, 2),), (9,))
    assert training_pipeline("ssul", 8, 0.5, scale=(1, 2)).scale == (1, 2)
