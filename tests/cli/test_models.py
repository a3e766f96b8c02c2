"""`contseg models`: what there is, and what a network costs."""

import re

import pytest
import torch
from torch import nn

from contseg.cli.models import flops_by_part
from contseg.cli.networks import network_of
from contseg.models.heads.idrnet.options import CONTEXT
from contseg.models.heads.options import HEADS
from contseg.models.segmenter import Segmenter
from tests.engine.runs import command

PUBLISHED = ["--idrnet", "output_stride=8", "contracted=true", "stem=deep", "auxiliary=true", "--crop", 32]


def shown(*words) -> dict[str, tuple[float, float]]:
    """Part -> parameters in millions, GFLOPs."""
    code, said, errors = command("models", *words)
    assert (code, errors) == (0, "")
    rows = re.findall(r"│ (\w+) +│ +([\d.]+) │ +([\d.]+) │", said)
    return {name: (float(count), float(flops)) for name, count, flops in rows}


def test_everything_is_listed():
    code, said, _ = command("models")
    assert code == 0
    for name in ("resnet18", "resnet101", "swin_tiny", *HEADS, "IDRNet"):
        assert name in said
    for head, context in CONTEXT.items():
        assert re.search(rf"│ {head} +│ +│ {context} +│", said)


@pytest.mark.parametrize(
    ("words", "millions"),
    [
        (["fcn", "head_width=512", "--classes", 19], 41.13),
        (["fcn", "head_width=512", "--classes", 182], 41.38),
        (["fcn", "head_width=1024", "--classes", 150], 55.77),
        (["upernet", "head_width=512", "--classes", 20, "idrnet.context=ppm"], 63.03),
    ],
)
def test_parameters_are_those_that_are_published(words, millions):
    assert shown("resnet50", *words, *PUBLISHED)["all"][0] == pytest.approx(millions, abs=0.005)


def test_operations_of_idrnet_are_those_of_its_head():
    network = network_of({"backbone": "resnet18", "head": "fcn"}, ["backbone.width=4", "head.width=8", "head.idrnet={}"])
    counted = flops_by_part(Segmenter(network, [5]).eval(), 64)
    assert counted["head"] > 10 * counted["classifier"] > 0
    assert 0 <= counted["backbone"] + counted["head"] + counted["classifier"] - counted["all"] <= counted["classifier"]


def test_parts_add_up_and_the_auxiliary_head_rests():
    parts = shown("resnet18", "fcn", "auxiliary=true", "--crop", 64, "width=16")
    for column in (0, 1):
        assert sum(parts[name][column] for name in parts if name != "all") == pytest.approx(parts["all"][column], abs=0.02)
    assert parts["auxiliary"][0] > 0
    assert parts["auxiliary"][1] == 0


def test_operations_are_multiplications_and_additions():
    """The classifier is a 1x1 convolution: 2 x channels x outputs x pixels."""
    options = network_of({"backbone": "resnet18", "head": "fcn"}, ["backbone.width=4", "head.width=8"])
    segmenter = Segmenter(options, [5]).eval()
    counted = flops_by_part(segmenter, 64)
    assert counted["classifier"] == 2 * 8 * 5 * (64 // options.backbone.output_stride) ** 2
    convolutions = [module for module in segmenter.modules() if isinstance(module, nn.Conv2d)]
    total = 0

    def add(module, inputs, output):
        nonlocal total
        total += 2 * output.numel() * module.weight[0].numel()

    for module in convolutions:
        module.register_forward_hook(add)
    with torch.no_grad():
        segmenter(torch.zeros(1, 3, 64, 64))
    assert counted["all"] == total


def test_a_head_may_be_left_out_before_options():
    assert shown("resnet18", "output_stride=8", "width=8", "--crop", 32).keys() == {"backbone", "head", "classifier", "all"}


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["resnet51"], "unknown backbone 'resnet51'; did you mean 'resnet50'?"),
        (["resnet18", "fcm"], "unknown head 'fcm'; did you mean 'fcn'?"),
        (["resnet18", "fcn", "head_with=3"], "network.head_with: unknown key (got 3); did you mean 'head'?"),
        (["resnet18", "fcn", "idrnet.refine=twice", "--idrnet"], "network.head.idrnet.refine"),
        (["resnet18", "--idrnet"], "deeplabv3-mib has no key 'idrnet' (got {}); it is a key of "),
        (["resnet18", "fcn", "width"], "'width': write KEY=VALUE"),
        (["resnet18", "fcn", "width.a=1", "width=3", "width.a=1"], "'width.a=1': write KEY=VALUE"),
        (["resnet18", "fcn", "width=[3"], "'width=[3': the value is not YAML"),
        (["resnet18", "fcn", "--crop", 3], "--classes 21 --crop 3: must be at least 1 and 16 pixels"),
        (["resnet18", "fcn", "--classes", 1, "unknown=true"], "must be at least 2 and 16 pixels"),
    ],
)
def test_mistakes_are_one_line(words, telling):
    code, _, errors = command("models", *words)
    assert code == 2
    (line,) = errors.splitlines()
    assert telling in line
    assert "options:" not in line  # which is no file
