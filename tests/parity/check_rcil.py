"""Golden files of RCIL."""

import numpy as np
import torch
from torch.nn import functional

from contseg.interop.names import renamed
from contseg.interop.published import MIB_NAMES, convert_segmenter, with_plain_norms
from contseg.methods.rcil import RCIL
from contseg.models.backbones.two_branches import TwoBranchBottleneck
from contseg.models.heads.deeplabv3_rcil import DeepLabV3RCIL
from contseg.models.layers import resize
from contseg.scenarios.step import Step
from tests.parity.check_networks import FEATURES
from tests.parity.goldens import claims, gradients, network_image, network_state

WEIGHTS = {
    "voc": {},
    "ade": {"spatial": 5e-6, "spatial_last": 5e-7, "channel": 5e-6, "channel_last": 5e-7},
    "cityscapes_domain": {"spatial": 5e-4, "spatial_last": 1e-4, "channel": 1e-4, "channel_last": 0.0},
}


@claims(r"rcil/pckd_.*")
def check_pooled_cube(golden):
    old, new = golden.meta["n_old"], golden.meta["n_new"]
    step = Step.of([*map(str, range(old + new))], old)
    method = RCIL(**WEIGHTS[golden.path.stem.removeprefix("pckd_")])
    maps = golden.numbered("in_new", grad=True)
    terms = method.distances(golden.numbered("in_old"), maps, step)
    total = torch.stack(list(terms.values())).sum()
    golden.check("out_spatial", terms["spatial"])
    golden.check("out_channel", terms["channel"])
    golden.check("out_total", total)
    for number, gradient in enumerate(gradients(total, *maps)):
        golden.check(f"grad_new{number}", gradient)


class Narrow(TwoBranchBottleneck):
    expansion = 2


BLOCK = ((r"^convs\.", ""), (r"^proj_conv\.", "downsample.0."), (r"^proj_bn\.", "downsample.1."))


def state_of(golden, rules, prefix="in_state.") -> dict[str, torch.Tensor]:
    found = {name.removeprefix(prefix): golden.tensor(name) for name in golden.arrays if name.startswith(prefix)}
    return {renamed(name, rules): value for name, value in with_plain_norms(found).items()}


def block_of(golden) -> Narrow:
    channels, (narrow, *_) = golden.arrays["in_x"].shape[1], golden.meta["channels"]
    block = Narrow(channels, narrow, golden.meta["stride"], golden.meta["dilation"], 0.01).double()
    block.load_state_dict(state_of(golden, BLOCK), strict=False)
    return block


def answer(block, x):
    return functional.leaky_relu(block(x), 0.01)


@claims(r"rcil/branch_merge")
def check_merge(golden):
    block, x = block_of(golden).eval(), golden.tensor("in_x")
    inner = functional.leaky_relu(block.bn1(block.conv1(x)), 0.01)
    before = answer(block, x)
    golden.check("out_before", before)
    for number, branch in enumerate(block.pair(), start=1):
        golden.check(f"out_branch{number}", branch(inner))
    same = block_of(golden).eval()
    same.merge("preserving")
    torch.testing.assert_close(answer(same, x), before, rtol=1e-12, atol=1e-12)
    block.merge()
    first, second = block.pair()
    golden.check("out_branch1_merged", first(inner))
    golden.check("out_expected_branch1_merged", first(inner))
    golden.check("out_branch2_after", second(inner))
    golden.check("out_after", answer(block, x))
    golden.check("out_change", (answer(block, x) - before).abs().max())
    golden.check("out_merged.convs.conv2.weight", block.conv2.weight)
    golden.check("out_merged.convs.conv2.bias", block.conv2.bias)
    for kind in ("weight", "bias", "running_mean"):
        golden.check(f"out_merged.convs.bn2.{kind}", getattr(block.bn2, kind))
    golden.check_close("out_merged.convs.bn2.running_var", block.bn2.running_var + block.bn2.eps, 1e-12)  # their eps is 0
    block.merge()
    golden.check("out_merged_twice.convs.conv2.weight", block.conv2.weight, 1e-5)
    golden.check("out_merged_twice.convs.conv2.bias", block.conv2.bias, 1e-5)


@claims(r"rcil/head_merge")
def check_head_merge(golden):
    x = golden.tensor("in_x").double()
    head = DeepLabV3RCIL([1, 1, 1, x.shape[1]], 256).double()
    head.branches_project = torch.nn.Conv2d(1024, 5, 1, bias=False)
    head.pooled_project = torch.nn.Conv2d(256, 5, 1, bias=False)
    head.norm = type(head.norm)(5)
    state = {name.removeprefix("head."): value for name, value in state_of(golden, [(r"^", "head."), *MIB_NAMES]).items()}
    head.double().load_state_dict({name: value.double() for name, value in state.items()}, strict=False)
    head.eval()
    golden.check("out_before", head([x]), 1e-5)
    head.merge()
    golden.check("out_after", head([x]), 1e-5)
    for number in range(4):
        golden.check(f"out_merged.map_convs.{number}.weight", head.branches[number].weight, 1e-5)
        golden.check(f"out_merged.map_convs.{number}.bias", head.branches[number].bias, 1e-5)


@claims(r"rcil/droppath")
def check_mixing(golden):
    block, x = block_of(golden).train(), golden.tensor("in_x", grad=True)
    uniform, rand = golden.tensor("in_uniform"), torch.rand
    torch.rand = lambda shape, **_: uniform if shape == tuple(uniform.shape) else rand(shape)
    try:
        out = answer(block, x)
    finally:
        torch.rand = rand
    golden.check("out_y", out)
    scalar = (out * golden.tensor("in_weight")).sum()
    golden.check("grad_x", *gradients(scalar, x))
    names = [name for name in golden.arrays if name.startswith("grad_") and name != "grad_x"]
    for name in names:
        original = name.removeprefix("grad_")
        (gradient,) = gradients(scalar, block.get_parameter(renamed(original, BLOCK)))
        given = golden.tensor(f"in_state.{original}")
        norm = f"in_state.{original.removesuffix('weight')}running_mean" in golden.arrays
        sign = torch.where(given < 0, -1.0, 1.0) if norm and original.endswith("weight") else 1.0  # gain = |w| + eps
        golden.check(name, gradient * sign)


@claims(r"rcil/r101_rcil_.*")
def check_network(golden):
    segmenter, widths = convert_segmenter(network_state(golden), "mib")
    assert widths == golden.meta["classes"]
    assert segmenter.options.backbone.branches == 2
    if "pooling_size" in golden.meta:
        segmenter.head.pooling_size = golden.meta["pooling_size"]
    image = network_image(golden)
    with torch.no_grad():
        output = segmenter(image, taps=("stage1", "stage2", "stage3", "stage4", "head"))
    golden.check_close("out_logits", output.logits, 1e-4)
    golden.check_close("ref64_logits", output.logits.double(), 1e-4)
    values = {name: output.features[tap] for name, tap in FEATURES.items()}
    for name in ("feat0", "feat1", "feat2", "feat3"):  # theirs are activated in place
        values[name] = segmenter.backbone.activate(values[name])
    values["body"] = values["feat3"]
    values["logits_up"] = resize(output.logits, tuple(image.shape[2:]))
    for name, value in values.items():
        if f"out_{name}_shape" in golden.arrays:
            golden.check(f"out_{name}_shape", np.array(value.shape))
            golden.check_close(f"out_{name}_mean", value.mean(dim=(0, 2, 3))[:256], 1e-4)
            step = 2 if name in ("logits_up", "feat0") else 1
            golden.check_close(f"out_{name}_sample", value[0, :8, ::step, ::step], 1e-4)
