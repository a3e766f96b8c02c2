"""A batch of one image is refused before training, exactly where training could not compute a norm."""

import pytest
import torch

from contseg.errors import ContsegError
from contseg.models.heads.options import HEADS
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from tests.engine.runs import tiny_recipe

NETWORKS = [
    *((f"network.head={head}",) for head in HEADS if head != "eomt"),
    ("network.head=fcn", "network.idrnet={}"),
    ("network.auxiliary={width: 8}",),
]
NETWORKS.append(("network.head=fcn", "data.crop=8"))


@pytest.mark.parametrize("network", NETWORKS, ids=" ".join)
def test_it_is_refused_where_a_norm_would_see_one_number(tmp_path, network):
    recipe = tiny_recipe("finetune", "training.batch=1", *network)
    segmenter = Segmenter(recipe.network, [6]).train()
    try:
        segmenter(torch.zeros(1, 3, recipe.data.crop, recipe.data.crop))
    except ValueError:
        with pytest.raises(ContsegError, match=r"training\.batch: 1 image is too few for head .*; set training\.batch=2"):
            make_job(recipe, tmp_path / "run")
    else:
        assert make_job(recipe, tmp_path / "run").training.batch == 1
    assert not (tmp_path / "run").exists()


def test_the_norm_of_a_stem_is_named(tmp_path):
    small = ["training.batch=1", "data.crop=16", "network.backbone.size=16"]
    with pytest.raises(ContsegError, match=r"too few for network\.backbone\.stem, of which .*; set training\.batch=2, or a"):
        make_job(read_recipe("digits/comformer_5-1", small), tmp_path / "run")


@pytest.mark.parametrize("head", [head for head in HEADS if head not in ("fcn", "eomt")])
def test_two_images_will_do(tmp_path, head):
    recipe = tiny_recipe("finetune", "training.batch=2", f"network.head={head}")
    assert make_job(recipe, tmp_path / "run").network.head.name == head
