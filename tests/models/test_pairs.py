"""Every head on own backbones, with and without IDRNet, and queries on vision transformers: what a continual run needs."""

import copy

import pytest
import torch

from contseg.models.heads.idrnet.options import IDRNetOptions
from contseg.models.heads.options import HEADS
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter
from contseg.ranks import Ranks

PYRAMIDS = {"upernet": {"fpn_width": 6}, "deeplabv3": {"dilations": (1, 2)}}
PLAIN = [(head, None) for head, options in HEADS.items() if not options.masks]
WITH_IDRNET = [
    ("fcn", {}),
    ("pspnet", {"refine": "before"}),
    ("pspnet", {"refine": "after", "stage1_on": "bottleneck"}),
    ("deeplabv3", {"refine": "after"}),
    ("upernet", {}),
    ("upernet", {"context": "aspp", "refine": "after"}),
]
NETWORKS = {
    f"{head}{'' if idrnet is None else '-idrnet-' + '-'.join(idrnet.values())}": (head, idrnet)
    for head, idrnet in [*PLAIN, *WITH_IDRNET]
}
BACKBONES = {"resnet18": "plain", "resnet50": "deep"}
TRUNKS = {
    "dinov2_reg_tiny": {"size": [64, 80]},
    "dinov3_tiny": {},
    "dinov3_tiny-lora": {"lora": 2},
}
"""Vision transformers under queries; the name ends at a dash."""


def make_eomt(trunk: str, classes: int = 3) -> Segmenter:
    """A tiny network on queries."""
    torch.manual_seed(0)
    sizes = {"patch": 8, "options": {"embed_dim": 16, "num_heads": 2}}
    options = NetworkOptions(
        backbone={"name": trunk.partition("-")[0], **sizes, **TRUNKS[trunk]},
        head={"name": "eomt", "queries": 6, "blocks": 2},
    )
    return make_segmenter(options, [classes])


def make(name: str, backbone: str = "resnet18", classes: int = 3, **changes) -> Segmenter:
    """A tiny network; `changes` are keys of its head."""
    torch.manual_seed(0)
    head, idrnet = NETWORKS[name]
    keys = {"name": head, "width": 8, **PYRAMIDS.get(head, {}), **changes}
    if idrnet is not None:
        keys["idrnet"] = IDRNetOptions(attention_width=4, **idrnet)
        keys |= {"dilations": (1, 2)} if idrnet.get("context") == "aspp" else {}
    options = NetworkOptions(
        backbone={"name": backbone, "width": 4, "stem": BACKBONES[backbone], "slope": 0.0, "output_stride": 8},
        head=keys,
        auxiliary={"width": 5},
    )
    return Segmenter(options, first_widths(options, classes))


def images(count=2, size=(64, 80)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def labels(count=2, classes=3, size=(64, 80)):
    return torch.randint(0, classes, (count, *size), generator=torch.Generator().manual_seed(2))


def exchange():
    """The keywords of `Segmenter.observe` in a run of one process."""
    return {"ranks": Ranks(), "generator": torch.Generator().manual_seed(3)}


PAIRS = [(name, backbone) for name in NETWORKS for backbone in BACKBONES]
QUERIES = [("eomt", trunk) for trunk in TRUNKS]


@pytest.fixture(params=[*PAIRS, *QUERIES], ids="-".join)
def segmenter(request):
    head, backbone = request.param
    return make_eomt(backbone) if head == "eomt" else make(head, backbone)


def of_old_classes(output, first=0) -> list[torch.Tensor]:
    """What the network says of the three old classes, before any decision."""
    if output.masks is None:
        return [output.logits[:, first:3]]
    return [output.masks.class_logits[..., first:3], output.masks.class_logits[..., -1], output.masks.mask_logits]


def test_logits_are_at_feature_resolution_with_an_output_per_class(segmenter):
    output = segmenter.eval()(images())
    stride = 4 if segmenter.options.head.name in ("upernet", "eomt") else 8
    assert output.logits.shape == (2, 3, 64 // stride, 80 // stride)
    assert output.logits_at((64, 80)).shape == (2, 3, 64, 80)
    assert output.auxiliary == []
    assert output.passed is None


def test_training_has_auxiliary_outputs_of_the_same_classes(segmenter):
    output = segmenter.train()(images())
    names = [extra.name for extra in output.auxiliary]
    if segmenter.options.masks:
        assert names == ["block1", "block2"]
    else:
        assert names == (["stage1"] if segmenter.options.idrnet else []) + ["stage3"]
    weight = 1.0 if segmenter.options.masks else 0.4
    assert all(extra.logits.shape[:2] == (2, 3) and extra.weight == weight for extra in output.auxiliary)


@pytest.mark.parametrize("count", [1, 3])
def test_growing_at_random_leaves_old_logits_bit_equal(segmenter, count):
    segmenter.eval()
    with torch.no_grad():
        before = segmenter(images())
        segmenter.grow(count, "random")
        after = segmenter(images())
    assert after.logits.shape[1] == 3 + count
    if segmenter.options.head.tokens:
        assert not torch.equal(of_old_classes(after)[0], of_old_classes(before)[0]), "tokens see each other"
    else:
        assert all(map(torch.equal, of_old_classes(after), of_old_classes(before)))


def test_growing_from_background_leaves_old_classes_bit_equal_where_no_stage_1_decides(segmenter):
    if segmenter.options.idrnet:
        pytest.skip("a lower background in stage 1 may give a pixel to another class, as it does in the last classifier")
    segmenter.eval()
    with torch.no_grad():
        before = segmenter(images())
        segmenter.grow(2, "background")
        after = segmenter(images())
    if segmenter.options.masks:  # no-object is what the new classes begin as
        shares = [one.masks.class_logits.softmax(dim=2)[..., :3] for one in (before, after)]
        torch.testing.assert_close(*shares)
        assert all(map(torch.equal, of_old_classes(after)[::2], of_old_classes(before)[::2]))
    elif segmenter.options.head.tokens:
        assert not torch.equal(of_old_classes(after, 1)[0], of_old_classes(before, 1)[0]), "tokens see each other"
    else:
        assert all(map(torch.equal, of_old_classes(after, 1), of_old_classes(before, 1)))


def test_gradients_reach_every_parameter(segmenter):
    segmenter.train()
    segmenter.grow(1, "random")
    output = segmenter(images(), taps=segmenter.taps)
    terms = [output.logits, *(extra.logits for extra in output.auxiliary), *output.features.values()]
    sum(term.square().mean() for term in terms).backward()
    missing = [name for name, one in segmenter.named_parameters() if one.requires_grad and one.grad is None]
    assert not missing
    assert segmenter.options.masks or all(parameter.requires_grad for parameter in segmenter.parameters())


def test_state_goes_into_an_equal_network_after_growing_and_training(segmenter):
    segmenter.train()
    segmenter.observe(segmenter(images()), labels(), **exchange())
    segmenter.grow(2, "random")
    other = make_segmenter(segmenter.options, segmenter.widths)
    other.load_state_dict(segmenter.state_dict())
    with torch.no_grad():
        assert torch.equal(segmenter.eval()(images()).logits, other.eval()(images()).logits)


def test_half_precision_gives_nearly_the_same_and_nothing_that_is_not_finite(segmenter):
    segmenter.eval()
    with torch.no_grad():
        precise = segmenter(images()).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = segmenter(images()).logits_at((8, 10))
    assert torch.isfinite(half).all()
    assert half.dtype == torch.float32
    assert precise.isfinite().all()


def test_training_in_half_precision_with_observation_is_finite(segmenter):
    segmenter.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = segmenter(images())
        loss = torch.nn.functional.cross_entropy(output.logits_at((64, 80)), labels())
        segmenter.observe(output, labels(), **exchange())
    loss.backward()
    for name, value in segmenter.state_dict().items():
        assert torch.isfinite(value.float()).all(), name


def test_channels_last_gives_the_same(segmenter):
    segmenter.eval()
    with torch.no_grad():
        before = segmenter(images()).logits
        after = segmenter.to(memory_format=torch.channels_last)(
            images().contiguous(memory_format=torch.channels_last)
        ).logits
    assert torch.allclose(before, after, atol=1e-4)


def test_a_copy_is_a_network_of_its_own(segmenter):
    """A teacher is a deep copy: what the student observes must not reach it."""
    teacher = copy.deepcopy(segmenter).eval()
    with torch.no_grad():
        before = teacher(images()).logits
    segmenter.train()
    segmenter.observe(segmenter(images()), labels(), **exchange())
    with torch.no_grad():
        assert torch.equal(teacher(images()).logits, before)


def made(name: str) -> Segmenter:
    return make_eomt(name) if name in TRUNKS else make(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, *TRUNKS])
def test_compiled_networks_give_the_same(name):
    segmenter = made(name).eval()
    with torch.no_grad():
        assert torch.allclose(torch.compile(segmenter)(images()).logits, segmenter(images()).logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, *TRUNKS])
def test_exported_networks_give_the_same(name):
    segmenter = made(name).eval()

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.segmenter = segmenter

        def forward(self, x):
            return self.segmenter(x).logits

    program = torch.export.export(Logits().eval(), (images(),))
    with torch.no_grad():
        assert torch.allclose(program.module()(images()), segmenter(images()).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"head": "deeplabv3-mib", "idrnet": {}},
            "deeplabv3-mib has no key 'idrnet' .*it is a key of fcn, pspnet, deeplabv3, upernet",
        ),
        ({"head": "upernet", "idrnet": {"context": "none"}}, "idrnet.context: upernet fuses a context"),
        ({"head": "upernett"}, "unknown head 'upernett'; did you mean 'upernet'"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkOptions.model_validate(options)
