"""Golden files of CFSSeg."""

import torch

from contseg.losses.features import nearest
from contseg.methods.gaussian.cfsseg import CFSSeg
from contseg.methods.gaussian.cfsseg_released import CFSSegReleased
from contseg.methods.gaussian.random_features import RandomFeatures
from contseg.methods.gaussian.ridge import RidgeSums, symmetric
from contseg.models.output import SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step
from tests.parity.goldens import claims


def features_of(golden) -> RandomFeatures:
    """The expansion of a golden."""
    matrix = golden.tensor("in_expansion")
    features = RandomFeatures.drawn("head", matrix.shape[1], expansion=matrix.shape[0])
    features.__dict__["_drawn"] = (matrix, torch.zeros(len(matrix), dtype=torch.float64))
    return features


def cells(golden, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Map and labels of the cells of a batch."""
    maps = golden.tensor(f"in_features{number}")
    labels = nearest(golden.tensor(f"in_labels{number}"), tuple(maps.shape[2:]))
    return maps.movedim(1, -1).flatten(0, 2), labels.flatten()


@claims(r"cfsseg/recursion")
def check_recursion(golden):
    features, meta = features_of(golden), golden.meta
    exact, started, balanced = (RidgeSums.empty(features, balanced=each) for each in (False, False, True))
    number, gamma = 0, meta["gamma"]
    first, labels = cells(golden, 0)
    golden.check("out_expanded0", features(first))
    golden.check("out_labels_grid0", labels)
    for step, (count, columns) in enumerate(zip(meta["steps"], meta["columns_after"], strict=True)):
        names = tuple(map(str, range(len(exact.classes), columns)))
        exact, balanced = exact.grown(names), balanced.grown(names)
        for _ in range(count):
            if f"in_new_columns{number}" in golden.arrays:
                start = golden.tensor(f"in_new_columns{number}").T
                done = len(started.classes)
                started = started.grown(tuple(map(str, range(done, done + len(start)))), start, gamma)
            for sums in (exact, started, balanced):
                sums.add(*cells(golden, number))
            number += 1
        golden.check(f"ref_batch_weight_step{step}", exact.weight(gamma).T)
        golden.check(f"ref_weight_with_new_columns_step{step}", started.weight(gamma).T)
        golden.check(f"out_weight_step{step}", started.weight(gamma).T)
        golden.check(f"out_balanced_weight_step{step}", balanced.weight(gamma).T)
        ridge = symmetric(exact.grams[0]) + gamma * torch.eye(features.width, dtype=torch.float64)
        golden.check(f"out_inverse_step{step}", ridge.inverse())
    golden.check("out_sum_features", symmetric(exact.grams[0]))
    golden.check("out_sum_targets", exact.totals.T)
    golden.check("out_sum_features", symmetric(balanced.grams.sum(dim=0)))


@claims(r"cfsseg/pseudo_labels")
def check_pseudo_labels(golden):
    scores, labels = golden.tensor("in_scores"), golden.tensor("in_labels")
    old = scores.shape[1]
    batch = Batch(torch.empty(0), labels, (), torch.zeros(len(labels), old + 1, dtype=torch.bool))
    step = Step.of([*map(str, range(old + 1))], old, index=2)
    found = CFSSegReleased(threshold=golden.meta["threshold"]).pseudo_labelled(batch, SegmenterOutput(scores), step)
    golden.check("out_labels", found.labels)
    golden.check("ref_paper_labels", CFSSeg().pseudo_labelled(batch, SegmenterOutput(scores), step).labels)
    everywhere = CFSSeg(threshold=0.0).pseudo_labelled(
        batch.relabelled(torch.zeros_like(labels)), SegmenterOutput(scores), step
    )
    golden.check("out_prediction", everywhere.labels)
