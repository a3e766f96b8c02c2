"""Every published network of the IDRNet toolbox is recognised by names and shapes of its file, one name to one of ours."""

import json
import re
from pathlib import Path

import pytest
import torch

from contseg.interop.convert import classes_of_outputs, convert_ssseg, recognise
from contseg.interop.names import OURS
from contseg.interop.ssseg import ssseg_names, ssseg_options
from contseg.models.segmenter import Segmenter

FILES = sorted((Path(__file__).parent / "manifests" / "idrnet").glob("*.json"))
CONTEXT = {"fcn": "none", "ppm": "ppm", "aspp": "aspp"}
HEAD = {"fcn": "fcn", "ppm": "pspnet", "aspp": "deeplabv3", "upernet": "upernet"}
DATASETS = {"ade20k": "ade20k", "cityscapes": "cityscapes", "cocostuff10k": "coco-stuff-10k", "lip": "lip",
            "pascalcontext59": "pascal-context"}  # fmt: skip
OUTPUTS = {"ade20k": 150, "cityscapes": 19, "cocostuff10k": 182, "lip": 20, "pascalcontext59": 59}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of the published shapes that take no memory."""
    rows = json.loads(path.read_text())
    return {name: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for name, shape, kind in rows}


def test_all_twenty_are_here():
    assert len(FILES) == 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("manifest_idrnet_"))
def test_options_are_inferred_and_names_fit_one_to_one(path):
    context, backbone, dataset = re.fullmatch(r"manifest_idrnet_(\w+?)_(resnet50os8|swinlarge)_(\w+)", path.stem).groups()
    tensors = tensors_of(path)
    assert recognise(tensors) == "ssseg"
    options = ssseg_options(tensors)
    assert options.head.name == HEAD[context]
    assert options.backbone.name.replace("-", "").replace("_", "") == backbone.removesuffix("os8")
    found_context = options.head.idrnet.context_of(options.head.name)
    has_aspp = any(name.startswith("coarse_context_module.parallel") for name in tensors)
    assert found_context == (("aspp" if has_aspp else "ppm") if context == "upernet" else CONTEXT[context])
    refined = [when for when in ("before", "after") if f"coarsecontext_refiner_{when}.out_project.0.weight" in tensors]
    assert options.head.idrnet.refine == (refined[0] if refined else "none")
    assert options.head.width == tensors["bottleneck.0.weight"].shape[0]
    assert options.auxiliary
    found = ssseg_names(tensors, options)
    made = sum(name.endswith(".relative_position_index") for name in tensors)  # follows from Swin's window
    assert len(found) == len(tensors) - made, "two names became one"
    with torch.device("meta"):
        own = Segmenter(options, [OUTPUTS[dataset]]).state_dict()
    assert {name for name in own if not OURS.search(name)} <= found.keys()
    assert found.keys() <= own.keys()
    assert {name: value.shape for name, value in found.items()} == {name: own[name].shape for name in found}
    table = classes_of_outputs(DATASETS[dataset], OUTPUTS[dataset])
    assert len(table) == OUTPUTS[dataset]
    assert table.has_background == (dataset == "lip")


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem.endswith(("fcn_resnet50os8_lip", "ppm_resnet50os8_lip"))]
)
def test_a_whole_file_comes_through(path):
    tensors = {name: torch.zeros_like(value, device="cpu") for name, value in tensors_of(path).items()}
    tensors["decoder_stage2.4.bias"][3] = 7.0
    segmenter, widths = convert_ssseg(tensors)
    assert widths == [20]
    assert segmenter.classifier.steps[0].bias.tolist() == [0.0] * 3 + [7.0] + [0.0] * 16
    assert not segmenter.training
