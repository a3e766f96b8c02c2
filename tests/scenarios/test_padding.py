"""What padding of a training crop is learned as, row by row as in docs/protocols.md."""

import numpy as np
import pytest

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.pipelines.augment import RandomScaleCrop
from contseg.data.pipelines.ssseg import FreeResizeCrop, KeepRatioCrop
from contseg.scenarios.batch import Samples
from contseg.scenarios.policy import LabelPolicy

SIDE = 32
SSUL = RandomScaleCrop(SIDE, flip=0.0, scale=(0.5, 0.5))
SSSEG = KeepRatioCrop(SIDE, scale=(0.5, 0.5), resize=(SIDE, SIDE))
SSSEG_LIP = FreeResizeCrop(SIDE, scale=(0.5, 0.5), resize=(SIDE, SIDE), turn=0.0)


@pytest.mark.parametrize(
    ("pipeline", "policy", "layers", "background", "expected"),
    [
        (SSUL, LabelPolicy("ssul"), ("mask",), "annotated", 0),  # unknown
        (SSUL, LabelPolicy("ssul"), ("mask",), "unlabelled", 0),
        (SSUL, LabelPolicy("ssul"), ("mask", "saliency"), "annotated", 1),  # background, after unknown
        (SSUL, LabelPolicy("plop"), ("mask",), "annotated", 0),  # background
        (SSUL, LabelPolicy("plop"), ("mask",), "none", IGNORE),
        (SSSEG, LabelPolicy("plop"), ("mask",), "annotated", IGNORE),
        (SSSEG, LabelPolicy("ssul"), ("mask",), "annotated", IGNORE),
        (SSSEG, LabelPolicy("mib"), ("mask",), "annotated", 0),  # background
        (SSSEG_LIP, LabelPolicy("plop"), ("mask",), "unscored", IGNORE),
    ],
)
def test_padding_is_learned_as_in_the_document(pipeline, policy, layers, background, expected):
    classes = ClassTable(("void", "cat"), (0, 1), ((0, 0, 0),) * 2, background)
    new = (1,) if background == "none" else (0, 1)
    labels_of = policy.lookup(classes, (0, 1), new, (), "train", "overlapped")
    sample = {name: np.ones((SIDE, SIDE), np.uint8) for name in layers}
    _, cut = pipeline(np.full((SIDE, SIDE, 3), 200, np.uint8), sample, np.random.default_rng(0))
    labels = Samples(None, (), labels_of, np.array([])).labels(cut)
    cat = 2 if policy.has_unknown else 1
    assert set(np.unique(labels)) == {expected, cat}
    assert labels[0, 0] == labels[-1, -1] == expected
    assert labels[SIDE // 2, SIDE // 2] == cat
