"""What padding of a training crop is learned as, row by row as in docs/protocols.md."""

import numpy as np
import pytest

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.pipelines.augment import RandomScaleCrop
from contseg.data.pipelines.ssseg import FreeResizeCrop, KeepRatioCrop
from contseg.scenarios.policy import LabelPolicy

SIDE = 32
SSUL = RandomScaleCrop(SIDE, flip=0.0, scale=(0.5, 0.5))
SSSEG = KeepRatioCrop(SIDE, scale=(0.5, 0.5), resize=(SIDE, SIDE))
SSSEG_LIP = FreeResizeCrop(SIDE, scale=(0.5, 0.5), resize=(SIDE, SIDE), turn=0.0)


@pytest.mark.parametrize(
    ("pipeline", "policy", "background", "expected"),
    [
        (SSUL, LabelPolicy("ssul"), "annotated", 0),  # unknown
        (SSUL, LabelPolicy("ssul"), "unlabelled", 0),
        (SSUL, LabelPolicy("ssul", saliency=True), "annotated", 1),  # background, after unknown
        (SSUL, LabelPolicy("plop"), "annotated", 0),  # background
        (SSUL, LabelPolicy("plop"), "none", IGNORE),
        (SSSEG, LabelPolicy("plop"), "annotated", IGNORE),
        (SSSEG, LabelPolicy("ssul"), "annotated", IGNORE),
        (SSSEG, LabelPolicy("mib"), "annotated", 0),  # background
        (SSSEG_LIP, LabelPolicy("plop"), "unscored", IGNORE),
    ],
)
def test_padding_is_learned_as_the_document_has_it(pipeline, policy, background, expected):
    classes = ClassTable(("void", "cat"), (0, 1), ((0, 0, 0),) * 2, background)
    new = (1,) if background == "none" else (0, 1)
    labels_of = policy.lookup(classes, (0, 1), new, (), "train", "overlapped")
    _, ids = pipeline(np.full((SIDE, SIDE, 3), 200, np.uint8), np.ones((SIDE, SIDE), np.uint8), np.random.default_rng(0))
    labels = labels_of[ids]
    cat = 2 if policy.has_unknown else 1
    assert set(np.unique(labels)) == {expected, cat}
    assert labels[0, 0] == labels[-1, -1] == expected
    assert labels[SIDE // 2, SIDE // 2] == cat
