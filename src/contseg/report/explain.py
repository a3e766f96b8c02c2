"""Why a run predicts a class: activation maps, features of regions, and similar classes, before and after a step."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from contseg.errors import ContsegError
from contseg.evaluation.features import classifier_input, evidence, region_map, region_means
from contseg.models.segmenter import Segmenter

Sample = tuple[np.ndarray, np.ndarray]
"""An image (H, W, 3) uint8, and its labels (H, W) in output order, 255 ignored."""
Projection = Literal["pca", "tsne"]
PICTURES = 6
"""Number of images with activation maps."""
SMALLEST = 0.25
"""The smallest region, in cells of the features."""


def explained(
    models: Mapping[str, Segmenter],
    place: int,
    names: tuple[str, ...],
    known: Mapping[str, int],
    stored: Iterable[Sample],
    tested: Iterable[Sample],
    projection: Projection = "pca",
) -> dict[str, np.ndarray]:
    """What `contseg explain` stores: everything that its page shows.

    Args:
        models: `after` and, unless it is the first step, `before`; in eval mode.
        place: position of the class in question.
        names: classes after the step, in output order.
        known: how many of them each model knows.
        stored: samples for activation maps, those with most pixels of the class first, and then tested ones.
        tested: samples for features of regions.
        projection: of the features of regions, see `projected`.

    Returns:
        `image`, `labelled` (bool), `before` and `after` (uint8, 255 is the largest activation of all) with the number of an
        image; of each region and model `points` (N, 2), `labels` and `when` (0 before, 1 after); `shares`, see `projected`;
        `regions` (K,), the number of regions of each class; `means_before` and `means_after` (K, D), the mean of their
        features, nan without regions.

    Raises:
        ContsegError: no region of any class is large enough, or see `projected`.
    """
    features: dict[str, list[Tensor]] = {when: [] for when in models}
    labels: list[int] = []
    seen: list[Sample] = []
    for image, truth in tested:
        maps = {when: classifier_input(segmenter, image) for when, segmenter in models.items()}
        cell = truth.size / maps["after"][0, 0].numel()
        numbers, values = region_map(truth, SMALLEST * cell)
        for when, found in maps.items():
            features[when].append(region_means(found, numbers, len(values)).cpu())
        labels += values
        if (truth == place).any() and len(seen) < PICTURES:
            seen.append((image, truth))
    if not labels:
        raise ContsegError(
            "--images: no labelled region of these test images is as large as a cell of the features; use more"
        )
    vectors = {when: torch.cat(parts) for when, parts in features.items()}
    of = torch.tensor(labels)
    order = [when for when in ("before", "after") if when in models]
    points, shares = projected(torch.cat([vectors[when] for when in order]), projection)
    return {
        **_activations(models, place, known, _chosen(stored, seen, place)),
        "points": points.float().numpy(),
        "labels": np.tile(np.array(labels), len(order)),
        "when": np.repeat([["before", "after"].index(when) for when in order], len(labels)),
        "shares": shares.numpy(),
        "regions": np.bincount(labels, minlength=len(names)),
        **{f"means_{when}": class_means(vectors[when], of, len(names)).float().numpy() for when in order},
    }


def _chosen(stored: Iterable[Sample], seen: list[Sample], place: int) -> list[Sample]:
    """The stored samples with most pixels of a class, and other ones that have it."""
    found = [sample for sample in stored if (sample[1] == place).any()]
    found.sort(key=lambda sample: -int((sample[1] == place).sum()))
    return [*found, *(one for one in seen if not any(np.array_equal(one[0], other[0]) for other in found))][:PICTURES]


def _activations(
    models: Mapping[str, Segmenter], place: int, known: Mapping[str, int], samples: list[Sample]
) -> dict[str, np.ndarray]:
    """Images, labelled pixels, and activation maps on one scale, of the models that know the class."""
    arrays: dict[str, np.ndarray] = {}
    maps: dict[str, np.ndarray] = {}
    for number, (image, truth) in enumerate(samples):
        arrays |= {f"image{number}": image, f"labelled{number}": truth == place}
        for when, segmenter in models.items():
            if place < known[when]:
                maps[f"{when}{number}"] = evidence(segmenter, image, place).cpu().numpy()
    largest = max((float(one.max()) for one in maps.values()), default=0.0) or 1.0
    return arrays | {name: (255 * one / largest).round().astype(np.uint8) for name, one in maps.items()}


def class_means(features_ND: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """The mean feature of the regions of each class, (classes, D); nan without regions.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3).flatten().tolist()
        [2.0, nan, 5.0]
    """
    which = torch.nn.functional.one_hot(labels_N, classes).to(features_ND)
    return which.T @ features_ND / which.sum(dim=0)[:, None]


def cosines(one_KD: np.ndarray, other_KD: np.ndarray) -> np.ndarray:
    """Cosine of each row with each row, (K, K) float64; nan where one of them is unknown or zero.

    Example:
        >>> cosines(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]])).tolist()
        [[1.0, 0.0, -1.0]]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = (
            rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
            for rows in (one_KD, other_KD)
        )
    return one @ other.T


def projected(features_ND: Tensor, projection: Projection) -> tuple[Tensor, Tensor]:
    """Features in two dimensions, (N, 2), and the share of the variance in each; without shares for t-SNE.

    Raises:
        ContsegError: t-SNE without scikit-learn.
    """
    return principal_components(features_ND) if projection == "pca" else (neighbours(features_ND), torch.zeros(0))


def principal_components(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in the two directions of largest variance (PCA), (N, 2), and the shares of the variance in them, (2,).

    A direction points to where its largest entry is positive. Directions without variance have coordinates of 0.

    Example:
        >>> points, shares = principal_components(torch.tensor([[0.0, 1.0, 7.0], [2.0, 1.0, 7.0], [4.0, 1.0, 7.0]]))
        >>> points.tolist(), shares.tolist()
        ([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]], [1.0, 0.0])
    """
    centred = features_ND.double() - features_ND.double().mean(dim=0)
    _, deviations, directions = torch.linalg.svd(centred, full_matrices=False)
    points, shares = centred.new_zeros(len(centred), 2), centred.new_zeros(2)
    for number in range(min(2, len(deviations))):
        if deviations[number] > 1e-12 * deviations[0]:
            direction = directions[number] * directions[number][directions[number].abs().argmax()].sign()
            points[:, number] = centred @ direction
            shares[number] = deviations[number].square() / deviations.square().sum()
    return points, shares


def neighbours(features_ND: Tensor) -> Tensor:
    """Coordinates in which neighbours stay neighbours (t-SNE, van der Maaten and Hinton, JMLR 2008), (N, 2); seed 0.

    Raises:
        ContsegError: scikit-learn is not installed.
    """
    made = t_sne()
    if len(features_ND) < 4:  # it needs more points than its perplexity
        return principal_components(features_ND)[0]
    fitted = made(perplexity=min(30.0, (len(features_ND) - 1) / 3), init="pca", random_state=0)
    return torch.from_numpy(fitted.fit_transform(features_ND.numpy()))


def t_sne() -> Any:
    """The class `TSNE` of scikit-learn.

    Raises:
        ContsegError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise ContsegError(
            "--projection tsne: scikit-learn is missing; use pca, or install it: pip install 'contseg[demo]'"
        ) from None
    return TSNE
