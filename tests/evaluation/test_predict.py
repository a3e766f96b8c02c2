"""Predictions have the size of the image and follow the segmenter's decision rule."""

import numpy as np
import pytest
import torch

from contseg.evaluation.predict import evaluate, predict_batch, predict_image, predict_with_doubt
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(NetworkOptions(backbone="resnet18", width=4, head_width=8, initialisation="he"), [4]).eval()


def batches(count=3):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        labels = torch.randint(0, 4, (2, 40, 48), generator=generator)
        labels[:, :4] = 255
        images = torch.randint(0, 256, (2, 3, 40, 48), generator=generator, dtype=torch.uint8)
        yield Batch(images, labels, ("a", "b"), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("size", [(1, 1), (7, 53)])
def test_a_network_that_pads_images_predicts_the_smallest(size):
    torch.manual_seed(0)
    network = {"backbone": {"name": "dinov2_reg_tiny", "patch": 16}, "head": {"name": "eomt", "queries": 4, "blocks": 1}}
    image = np.zeros((*size, 3), dtype=np.uint8)
    assert predict_image(make_segmenter(NetworkOptions(**network), [3]).eval(), image).shape == size


@pytest.mark.parametrize("size", [(37, 53), (64, 64), (100, 33)])
def test_an_image_gets_a_class_for_each_of_its_pixels(segmenter, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    said = predict_image(segmenter, image)
    assert said.shape == size
    assert said.dtype == np.uint8
    assert said.max() < 4
    assert len(np.unique(said)) > 1


def test_one_image_is_predicted_as_in_a_batch_with_all_gradients_off(segmenter):
    batch = next(batches())
    together = predict_batch(segmenter, batch.images)
    alone = predict_image(segmenter, batch.images[1].permute(1, 2, 0).numpy())
    assert (together[1].numpy() == alone).mean() > 0.999
    assert not together.requires_grad


def test_a_prediction_can_have_another_size(segmenter):
    assert predict_batch(segmenter, next(batches()).images, size=(10, 12)).shape == (2, 10, 12)


def test_scores_decide(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter, "scores", lambda logits: -logits)
    batch = next(batches())
    with torch.no_grad():
        logits = segmenter(segmenter.normalise(batch.images)).logits_at((40, 48))
    assert torch.equal(predict_batch(segmenter, batch.images), logits.argmin(dim=1))


def test_doubt_is_the_entropy_and_the_margin_of_the_scores(segmenter):
    image = next(batches()).images[1].permute(1, 2, 0).numpy()
    with torch.no_grad():
        batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
        scores = segmenter(segmenter.normalise(batch)).logits_at((40, 48)).softmax(dim=1)[0].numpy()
    classes, entropy, margin = (values.numpy() for values in predict_with_doubt(segmenter, image))
    assert np.array_equal(classes, predict_image(segmenter, image))
    assert np.allclose(entropy, -(scores * np.log(scores)).sum(axis=0) / np.log(len(scores)), atol=1e-5)
    first, second = np.sort(scores, axis=0)[::-1][:2]
    assert np.allclose(margin, first - second, atol=1e-6)
    assert 0 < entropy.min() <= entropy.max() <= 1 + 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_counts_every_labelled_pixel_and_leaves_the_segmenter_as_it_was(segmenter, training):
    segmenter.train(training)
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    told = []
    counts = evaluate(segmenter, batches(), 4, on_batch=lambda: told.append(1))
    assert counts.sum() == 3 * 2 * 36 * 48
    assert counts.sum(dim=1).tolist() == sum(torch.bincount(b.labels[b.labels < 4], minlength=4) for b in batches()).tolist()
    assert len(told) == 3
    assert segmenter.training is training
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
