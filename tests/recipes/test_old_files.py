"""Recipes, runs and segmenters that earlier versions wrote, with the keys of a network next to each other, still read."""

import json
from pathlib import Path

import pytest
import torch

from contseg.errors import ContsegError
from contseg.interop.pretrained import load_pretrained
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from contseg.models.options import NetworkOptions
from contseg.recipes.read import read_recipe, resolve, to_yaml

OLD = Path(__file__).parents[1] / "old_files"

SAME = {
    "digits_plop": ("digits/plop_5-1", ["network.backbone.width=1", "network.head.width=1"]),
    "voc_ssul": ("voc/ssul_15-1_overlapped", []),
    "voc_sdr": ("voc/sdr_15-1_disjoint", []),
    "cityscapes_idrnet_uper": ("cityscapes/idrnet_uper_resnet50-d8", []),
    "ade20k_idrnet_swin": ("ade20k/idrnet_uper_swin-large", ["network.backbone.window=7"]),
}
"""The recipe that an old run was made from, in the form of today."""


@pytest.mark.parametrize("name", SAME)
def test_the_recipe_of_a_saved_run_is_that_of_today(name):
    assert read_recipe(OLD / f"{name}.yaml") == read_recipe(*SAME[name])


def test_a_saved_segmenter_gives_the_logits_it_gave():
    image = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    for segmenter, classes in (load_pretrained(OLD / "segmenter"), load_segmenter(OLD / "segmenter/segmenter.safetensors")):
        with torch.no_grad():
            logits = segmenter(image).logits
        assert len(classes) == logits.shape[1] == 6
        assert logits.double().sum().item() == pytest.approx(0.7842450439929962, rel=1e-5)


def test_a_segmenter_that_is_written_again_has_the_keys_of_today(tmp_path):
    segmenter, classes = load_pretrained(OLD / "segmenter")
    save_segmenter(tmp_path / "new.safetensors", segmenter, classes)
    assert load_segmenter(tmp_path / "new.safetensors")[0].options == segmenter.options
    assert list(segmenter.options.model_dump())[:3] == ["backbone", "head", "auxiliary"]


def old_network(**changes) -> dict:
    """All keys of an old network, some of them changed."""
    return json.loads((OLD / "segmenter" / "segmenter.json").read_text())["network"] | changes


@pytest.mark.parametrize(
    ("changes", "part", "expected"),
    [
        ({"backbone": "swin_tiny", "width": 8}, "backbone", {"name": "swin_tiny"}),
        ({"backbone": "convnext_tiny", "drop_path": 0.2, "backbone_options": {"depths": [1]}}, "backbone",
         {"name": "convnext_tiny", "drop_path": 0.2, "options": {"depths": [1]}}),
        ({"backbone": "swin_tiny", "output_stride": 8, "slope": 0.0}, "head",
         {"width": 1, "output_stride": 8, "slope": 0.0, "pooling_size": 12}),
        ({"backbone": "swin_tiny", "output_stride": 8, "head": "deeplabv3"}, "head",
         {"name": "deeplabv3", "width": 1, "dilations": (1, 12, 24, 36)}),
        ({"head": "fcn", "dilations": [1, 2], "dropout": 0.3}, "head", {"name": "fcn", "width": 1, "dropout": 0.3}),
        ({"auxiliary": True, "auxiliary_width": 8, "dropout": 0.3}, "auxiliary", {"width": 8, "dropout": 0.3}),
        ({"auxiliary": False, "auxiliary_width": 8}, "auxiliary", None),
    ],
)  # fmt: skip
def test_keys_that_a_part_lacked_are_left_out_and_the_others_find_their_place(changes, part, expected):
    """What a network computed is what it computes: heads read stride and slope of the network over any backbone."""
    network = NetworkOptions.model_validate(old_network(**changes))
    assert getattr(network, part) == getattr(NetworkOptions(**{part: expected}), part)


@pytest.mark.parametrize(("key", "value"), [("colour", 1), ("backbone", "vgg"), ("stem", "flat")])
def test_a_run_that_cannot_be_read_any_more_names_the_key(tmp_path, key, value):
    text = (OLD / "digits_plop.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(f"  {key}:")]
    lines.insert(lines.index("network:") + 1, f"  {key}: {value}")
    (tmp_path / "recipe.yaml").write_text("\n".join(lines))
    with pytest.raises(ContsegError, match=rf"network\.(backbone\.)?{key}: ") as caught:
        read_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


class TestOldKeysBesideNewOnes:
    def write(self, folder, text) -> Path:
        path = folder / "own.yaml"
        path.write_text(f"name: own\n{text}")
        return path

    def test_an_old_recipe_lies_over_new_parts(self, tmp_path):
        path = self.write(
            tmp_path, "extends: digits/plop_5-1\nnetwork: {backbone: resnet34, width: 4, head_width: 8, auxiliary: true}"
        )
        network = read_recipe(path, ["network.auxiliary_width=2"]).network
        assert (network.backbone.name, network.backbone.width, network.backbone.output_stride) == ("resnet34", 4, 8)
        assert (network.head.width, network.head.pooling_size, network.auxiliary.width) == (8, 12, 2)

    def test_old_overrides_have_their_origin_at_the_new_key(self):
        origins = resolve(
            "digits/plop_5-1", ["network.width=4", "network.head=fcn", "network.idrnet={refine: after}"]
        ).origins
        for key in ("backbone.width", "head.name", "head.idrnet.refine"):
            assert origins[f"network.{key}"] == "command line"
        assert "network.width" not in origins

    @pytest.mark.parametrize("order", [1, -1])
    def test_of_two_overrides_the_new_key_wins(self, order):
        changes = ["network.width=8", "network.backbone.width=4"][::order]
        assert read_recipe("digits/plop_5-1", changes).network.backbone.width == 4

    def test_a_key_that_the_chosen_part_lacks_is_refused_in_a_recipe_too(self, tmp_path):
        path = self.write(tmp_path, "extends: digits/plop_5-1\nnetwork: {head: fcn, fpn_width: 8}")
        with pytest.raises(ContsegError, match=r"network\.head: fcn has no key 'fpn_width'"):
            read_recipe(path)


class TestAnotherPart:
    """A part that takes the place of another one keeps what both have."""

    def test_leaves_the_keys_of_recipes_that_it_lacks(self):
        recipe = read_recipe("digits/plop_5-1", ["network.backbone=swin_tiny", "network.head=upernet"])
        assert recipe.network == NetworkOptions(backbone="swin_tiny", head={"name": "upernet", "width": 64})

    @pytest.mark.parametrize("order", [1, -1])
    def test_refuses_a_key_of_the_same_command_line(self, order):
        changes = ["network.backbone.width=4", "network.backbone=swin_tiny"][::order]
        with pytest.raises(ContsegError, match=r"network\.backbone: swin_tiny has no key 'width' \(got 4\)"):
            read_recipe("digits/plop_5-1", changes)

    @pytest.mark.parametrize("order", [1, -1])
    def test_takes_its_own_keys_of_the_same_command_line(self, order):
        changes = ["network.head.fpn_width=4", "network.head=upernet"][::order]
        assert read_recipe("digits/plop_5-1", changes).network.head.fpn_width == 4

    def test_goes_through_a_file(self, tmp_path):
        recipe = read_recipe("voc/plop_15-1_overlapped", ["network.backbone=convnext_tiny", "network.auxiliary=true"])
        (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
        assert read_recipe(tmp_path / "recipe.yaml") == recipe
