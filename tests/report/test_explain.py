"""What explains a class: projections, means and cosines of features made by hand, and what is stored of two models."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from contseg.errors import ContsegError
from contseg.models.adopted.segmenter import adopt
from contseg.report.explain import cosines, explained, neighbours, principal_components

NAMES = ("background", "red", "green")


def by_colour(green: float = 1.0):
    """A segmenter whose features are the channels of the image, and whose classes are red and green."""
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.diag(torch.tensor([1.0, green, 1.0]))[:, :, None, None])
        module[1].weight.copy_(torch.tensor([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])[:, :, None, None])
    return adopt(module, NAMES, classifier="1", mean=(0, 0, 0), std=(1, 1, 1)).eval()


def sample(*boxes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image of blue ground with squares of 4 pixels: (class, row, column)."""
    image, labels = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    image[..., 2] = 255
    for label, row, column in boxes:
        image[row : row + 4, column : column + 4] = np.eye(3, dtype=np.uint8)[label - 1] * 255
        labels[row : row + 4, column : column + 4] = label
    return image, labels


def found(place: int = 1, known: int = 3, stored=None, **options):
    models = {"before": by_colour(green=0.5), "after": by_colour()}
    tested = [sample((1, 0, 0), (2, 8, 8)), sample((1, 0, 0), (1, 8, 8))]
    stored = stored or [sample((1, 2, 2))]
    return explained(models, place, NAMES, {"before": known, "after": 3}, stored, tested, **options)


class TestWhatIsStored:
    def test_a_class_is_active_where_its_pixels_are(self):
        arrays = found()
        for when in ("before0", "after0"):
            assert ((arrays[when] == 255) == arrays["labelled0"]).all()
            assert set(np.unique(arrays[when])) == {0, 255}

    def test_both_models_have_one_scale(self):
        arrays = found(place=2, stored=[sample((2, 2, 2))])
        assert (arrays["before0"].max(), arrays["after0"].max()) == (128, 255)

    def test_a_model_that_does_not_know_the_class_has_no_map(self):
        assert "before0" not in found(place=2, known=2, stored=[sample((2, 2, 2))])

    def test_stored_images_with_most_pixels_of_the_class_come_first_and_then_others(self):
        arrays = found(stored=[sample((2, 0, 0)), sample((1, 4, 4)), sample((1, 0, 0), (1, 8, 8))])
        assert [arrays[f"labelled{number}"].sum() for number in range(3)] == [32, 16, 16]
        assert "image3" not in arrays  # the other test image is a stored one

    def test_test_images_are_used_where_no_stored_one_has_the_class(self):
        assert found(stored=[sample((2, 0, 0))])["labelled1"].sum() == 32

    def test_a_region_is_a_point_of_each_model(self):
        arrays = found()
        assert arrays["regions"].tolist() == [2, 3, 1]
        assert arrays["when"].tolist() == [0] * 6 + [1] * 6
        assert sorted(arrays["labels"][:6]) == [0, 0, 1, 1, 1, 2]
        assert arrays["means_before"].tolist() == [[0, 0, 1], [1, 0, 0], [0, 0.5, 0]]
        assert arrays["means_after"].tolist() == np.eye(3)[[2, 0, 1]].tolist()

    def test_the_first_step_has_no_model_before_it(self):
        arrays = explained({"after": by_colour()}, 1, NAMES, {"after": 3}, [sample((1, 2, 2))], [sample((1, 0, 0))])
        assert not {"before0", "means_before"} & set(arrays)
        assert set(arrays["when"]) == {1}
        assert np.isnan(arrays["means_after"][2]).all()

    def test_images_without_a_region_are_refused(self):
        ignored = np.zeros((16, 16, 3), np.uint8), np.full((16, 16), 255, np.uint8)
        with pytest.raises(ContsegError, match="--images: no labelled region"):
            explained({"after": by_colour()}, 1, NAMES, {"after": 3}, [], [ignored])


class TestProjections:
    def test_principal_components_are_those_of_the_covariance(self):
        torch.manual_seed(0)
        features = torch.randn(30, 5, dtype=torch.float64) @ torch.diag(torch.tensor([3.0, 1, 0.5, 0.2, 0.1]).double())
        points, shares = principal_components(features)
        values = torch.linalg.eigvalsh(torch.cov(features.T)).flip(0)
        assert torch.allclose(points.var(dim=0), values[:2])
        assert torch.allclose(shares, values[:2] / values.sum())
        assert torch.cov(points.T)[0, 1].abs() < 1e-9

    def test_a_single_point_has_no_direction(self):
        points, shares = principal_components(torch.ones(1, 4))
        assert (points.tolist(), shares.tolist()) == ([[0, 0]], [0, 0])

    def test_t_sne_repeats(self):
        pytest.importorskip("sklearn")
        features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        assert neighbours(features).shape == (8, 2)
        assert torch.equal(neighbours(features), neighbours(features))

    def test_t_sne_needs_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
        with pytest.raises(ContsegError, match="--projection tsne: scikit-learn is missing; use pca, or install it: pip"):
            neighbours(torch.zeros(8, 3))


def test_a_class_without_regions_is_similar_to_none():
    means = np.array([[1.0, 0.0], [np.nan, np.nan], [1.0, 1.0]])
    similar = cosines(means, means)
    assert np.isnan(similar[1]).all()
    assert similar[0, 2] == pytest.approx(0.5**0.5)
