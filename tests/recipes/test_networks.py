"""A recipe trains the network that was published: that of the converter, which the golden files of its family pin down."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from contseg.interop.convert import CONVERTERS, recognise
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import is_of_published_data, read_recipe, recipe_names
from contseg.scenarios.policy import LabelPolicy
from tests.parity.goldens import ROOT

IDRNET = Path(__file__).parents[1] / "interop" / "manifests" / "idrnet"
MANIFESTS = {
    "mib": ROOT / "mib" / "manifest_r101_iabn_deeplab_16_1_1.json",
    "plop": ROOT / "plop" / "manifest_r101_iabn_deeplab_16_1_1.json",
    "csseg": ROOT / "csseg" / "manifest_r101_iabn_aspp_16_1_1.json",
    "sdr": ROOT / "sdr" / "manifest_r101_bn_deeplab_16_1_1.json",
    "idec": ROOT / "idec" / "manifest_deeplabv3_r101.json",
    "dkd": ROOT / "dkd" / "manifest_r101_dkd_15_1_1_1_1_1.json",
    "rcil": ROOT / "rcil" / "manifest_r101_rcil_16_1_1.json",
    "mbs": ROOT / "mbs" / "manifest_vit_b16_mbs_15_1.json",
    "star": ROOT / "star" / "manifest_r101_star_15_1_1_1_1_1.json",
    "barm": ROOT / "barm" / "manifest_r101_barm_15_1_1.json",
}
CODE_BASES = {  # of the method that a recipe's name begins with; the rest were trained in cssegmentation, or in MiB's code
    "mib": ("mib", "csseg"), "ilt": ("mib", "csseg"), "lwf": ("mib", "csseg"), "plop": ("plop", "csseg"),
    "rcil": ("rcil",),
    "reminder": ("plop", "csseg"),
    "sdr": ("csseg",), "sdr-official": ("sdr",), "ssul": ("ssul",), "ssul-m": ("ssul",), "idec": ("idec",), "lag": ("lag",),
    "dkd": ("dkd",), "dkd-m": ("dkd",), "star": ("star",), "star-m": ("star",), "adapter": ("star",),
    "mbs": ("mbs",),
    "barm": ("barm",), "cfsseg": (),
    **dict.fromkeys(("comformer", "balconpas", "simcis", "mib-masks", "plop-masks"), ()),
    **dict.fromkeys(("finetune-eomt", "frozen-eomt", "joint-eomt"), ()),
}  # fmt: skip
STARTS = {"backbone": {"initialisation": "torch"}, "head": {"initialisation": None}}
"""Weights that are loaded replace what a network starts from."""
UNCONTRACTED, CONTRACTED = [2, 2, 2], [1, 2, 2]

NAMES = [name for name in recipe_names() if is_of_published_data(name)]
CASES = [
    (name, source)
    for name in NAMES
    if (method := name.split("/")[1].split("_")[0]) != "idrnet" and not name.startswith("ade20k-panoptic/")  # all are EoMT
    for source in CODE_BASES.get("mbs" if name.endswith("_vitb") else method, ("mib", "csseg"))
]
OF_IDRNET = [name for name in NAMES if "/idrnet_" in name]


def meta_tensors(manifest: Path) -> dict[str, torch.Tensor]:
    """Tensors of the published shapes that take no memory; counters are left out, as in the files themselves."""
    rows = json.loads(manifest.read_text())
    return {name: torch.empty(shape, device="meta") for name, shape, kind in rows if kind.startswith("float")}


def convert(tensors: dict[str, torch.Tensor], source: str) -> Segmenter:
    with torch.device("meta"):
        return CONVERTERS[source](tensors, source)[0]


@cache
def converted(source: str) -> Segmenter:
    """What the converter makes of a file of a code base."""
    found = "idec" if source in ("ssul", "lag") else source
    tensors = meta_tensors(MANIFESTS[found])
    if source == "ssul":  # has no pyramids over the first stages
        tensors = {name: value for name, value in tensors.items() if not name.startswith("classifier.aspp_l")}
    assert recognise(tensors) == {"plop": "mib", "lag": "idec", "star": "dkd", "rcil": "mib"}.get(source, source)
    return convert(tensors, "mib" if source == "rcil" else source)


@cache
def network_of(name: str) -> NetworkOptions:
    """The network that a recipe trains."""
    recipe = read_recipe(name)
    network = recipe.network.changed(unknown=LabelPolicy(recipe.scenario.policy).has_unknown)
    return network.changed(**STARTS) if network.backbone.name.startswith("resnet") else network


def dilations(segmenter: Segmenter) -> list[int]:
    """Of the 3x3 convolutions of stage 4, block by block."""
    return [block.conv2.dilation[0] for block in segmenter.backbone.layer4]


@pytest.mark.parametrize(("name", "source"), CASES)
def test_recipe_and_converter_have_one_network(name, source):
    assert network_of(name) == converted(source).options


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("voc/mib_15-1_overlapped", "mib", UNCONTRACTED),
        ("voc/plop_15-1_overlapped", "plop", UNCONTRACTED),
        ("voc/sdr_15-1_overlapped", "csseg", UNCONTRACTED),
        ("voc/sdr-official_15-1_overlapped", "sdr", UNCONTRACTED),
        ("voc/ssul_15-1_overlapped", "ssul", CONTRACTED),
        ("voc/ssul-m_15-1_overlapped", "ssul", CONTRACTED),
        ("ade20k/idec_100-10_overlapped", "idec", CONTRACTED),
        ("isprs-domain/lag_2-1_overlapped", "lag", CONTRACTED),
    ],
)
def test_networks_are_alike_module_by_module(name, source, expected):
    published = converted(source)
    with torch.device("meta"):
        own = Segmenter(network_of(name), published.widths)
    assert repr(own) == repr(published)
    assert dilations(own) == dilations(published) == expected
    assert [block.conv2.stride[0] for block in own.backbone.layer4] == [1, 1, 1]


@pytest.mark.parametrize("name", OF_IDRNET)
def test_recipes_of_idrnet_have_the_network_of_their_published_file(name):
    dataset, head, backbone = re.fullmatch(r"(\w+)/idrnet_(\w+)_(resnet50-d8|swin-large)", name).groups()
    head = {"psp": "ppm", "deeplabv3": "aspp", "uper": "upernet"}.get(head, head)
    backbone = {"resnet50-d8": "resnet50os8", "swin-large": "swinlarge"}[backbone]
    published = convert(meta_tensors(IDRNET / f"manifest_idrnet_{head}_{backbone}_{dataset}.json"), "ssseg")
    own = network_of(name)
    assert repr(_on_meta(own, published.widths)) == repr(published)
    assert written_out(own) == written_out(published.options)


def _on_meta(options: NetworkOptions, widths: list[int]) -> Segmenter:
    with torch.device("meta"):
        return Segmenter(options, widths)


def written_out(options: NetworkOptions) -> NetworkOptions:
    """The options, with defaults that follow from others."""
    head = options.head
    rates = head.rates(options.backbone.head_stride) if head.context == "aspp" else None
    return options.changed(head={"idrnet": {"context": head.context}, "dilations": rates})
