"""What every network does, and what a segmenter adds: taps, growing, scores."""

import inspect
import itertools
import re

import pytest
import torch

from contseg.errors import ContsegError
from contseg.models.backbones.backbone import Backbone
from contseg.models.backbones.options import BackboneOptions
from contseg.models.backbones.resnet import ResNet
from contseg.models.heads.head import Head
from contseg.models.heads.options import HeadOptions
from contseg.models.layers import resize
from contseg.models.options import TAPS, NetworkOptions
from contseg.models.segmenter import Segmenter

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
EXPANSION = {"resnet18": 1, "resnet34": 1, "resnet50": 4, "resnet101": 4}
NETWORKS = list(itertools.product(BACKBONES, (8, 16, 32), (False, True)))
STRIDES = {8: (4, 8, 8, 8), 16: (4, 8, 16, 16), 32: (4, 8, 16, 32)}


def images(seed=0, count=2, size=64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("backbone", "stride", "contracted"), NETWORKS)
def test_maps_have_the_shapes_of_the_output_stride(make_segmenter, backbone, stride, contracted):
    segmenter = make_segmenter(backbone=backbone, output_stride=stride, contracted=contracted).eval()
    with torch.no_grad():
        output = segmenter(images(count=1), taps=TAPS)
    channels = [4 * EXPANSION[backbone] * 2**stage for stage in range(4)] + [8, 3]
    sides = [64 // step for step in (*STRIDES[stride], stride, stride)]
    shapes = [tuple(output.features[tap].shape) for tap in TAPS]
    assert shapes == [(1, width, side, side) for width, side in zip(channels, sides, strict=True)]
    assert torch.equal(output.logits, output.features["logits"])
    assert output.logits_at((50, 70)).shape == (1, 3, 50, 70)


@pytest.mark.parametrize(("backbone", "stride", "contracted"), NETWORKS)
def test_contracted_delays_the_dilation_of_a_stage_by_one_block(make_segmenter, backbone, stride, contracted):
    body = make_segmenter(backbone=backbone, output_stride=stride, contracted=contracted).backbone
    dilations = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}[stride]
    for stage, dilation in enumerate(dilations):
        blocks = [
            max(m.dilation[0] for m in block.modules() if isinstance(m, torch.nn.Conv2d))
            for block in body.get_submodule(f"layer{stage + 1}")
        ]
        first = dilations[max(stage - 1, 0)] if contracted else dilation
        assert blocks == [first, *[dilation] * (len(blocks) - 1)]


class TestEveryBackbone:
    @pytest.fixture(params=BACKBONES)
    def segmenter(self, request, make_segmenter):
        return make_segmenter(backbone=request.param)

    def test_state_goes_into_an_equal_network_and_gives_equal_logits(self, segmenter):
        other = Segmenter(segmenter.options, segmenter.widths)
        segmenter(images())  # moves the running statistics
        other.load_state_dict(segmenter.state_dict())
        with torch.no_grad():
            assert torch.equal(segmenter.eval()(images()).logits, other.eval()(images()).logits)

    def test_gradients_reach_every_parameter(self, segmenter):
        segmenter(images(count=3)).logits.square().sum().backward()
        unreached = [name for name, p in segmenter.named_parameters() if p.grad is None or not p.grad.any()]
        assert unreached == []

    def test_bf16_autocast_gives_nearly_the_same_finite_logits(self, segmenter):
        segmenter.eval()
        with torch.no_grad():
            exact = segmenter(images()).logits
            with torch.autocast("cpu", torch.bfloat16):
                rough = segmenter(images())
        assert rough.logits.dtype == torch.bfloat16
        assert rough.logits_at((64, 64)).dtype == torch.float32
        assert (rough.logits - exact).abs().max() < 0.1 * exact.std() + 0.1

    def test_channels_last_gives_the_same_result(self, segmenter):
        segmenter.eval()
        with torch.no_grad():
            expected = segmenter(images()).logits
            segmenter.to(memory_format=torch.channels_last)
            found = segmenter(images().contiguous(memory_format=torch.channels_last)).logits
        assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())

    def test_taps_are_sums_before_activation_and_not_changed_after(self, segmenter):
        output = segmenter.eval()(images(), taps=("stage1", "stage4"))
        for tap in ("stage1", "stage4"):
            assert (output.features[tap] < 0).any()
        decoded = segmenter.head([segmenter.backbone.activate(output.features["stage4"])])
        assert torch.equal(segmenter.classifier(decoded), output.logits)


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
def test_the_slope_is_that_of_the_activation(make_segmenter, slope):
    body = make_segmenter(slope=slope).backbone
    x = torch.tensor([-2.0, 3.0])
    assert torch.allclose(body.activate(x), torch.tensor([-2.0 * slope, 3.0]))
    assert torch.allclose(body.activation(x.clone()), torch.tensor([-2.0 * slope, 3.0]))


class TestGrowing:
    @pytest.fixture
    def before(self, make_segmenter):
        return make_segmenter((3, 2)).eval()

    def grow(self, segmenter, count, start):
        """Logits before and after."""
        with torch.no_grad():
            old = segmenter(images()).logits
            segmenter.grow(count, start)
            return old, segmenter(images()).logits

    def test_random_leaves_old_logits_bit_equal(self, before):
        old, new = self.grow(before, 2, "random")
        assert new.shape[1] == 7
        assert torch.equal(new[:, :5], old)

    def test_background_leaves_all_but_the_background_logit_bit_equal(self, before):
        old, new = self.grow(before, 2, "background")
        assert torch.equal(new[:, 1:5], old[:, 1:])
        assert not torch.equal(new[:, 0], old[:, 0])

    @pytest.mark.parametrize("count", [1, 4])
    def test_background_shares_its_probability_and_leaves_those_of_old_classes(self, before, count):
        old, new = (logits.softmax(dim=1) for logits in self.grow(before, count, "background"))
        assert torch.allclose(new[:, 1:5], old[:, 1:], atol=1e-6)
        for number in (0, *range(5, 5 + count)):
            assert torch.allclose(new[:, number], old[:, 0] / (count + 1), atol=1e-6)

    def test_widths_tell_the_outputs_of_each_step(self, before):
        before.grow(4)
        assert before.widths == [3, 2, 4]
        assert Segmenter(before.options, before.widths).state_dict().keys() == before.state_dict().keys()

    def test_an_unknown_start_changes_nothing_and_is_told(self, before):
        with pytest.raises(ContsegError, match="cannot start new classes from 'unknown'"):
            before.grow(1, "unknown")
        assert before.widths == [3, 2]


def test_soft_max_scores_compete_and_sigmoid_scores_do_not(make_segmenter):
    logits = torch.randn(2, 3, 4, 4)
    competing = make_segmenter(decision="softmax").scores(logits)
    assert torch.allclose(competing.sum(dim=1), torch.ones(2, 4, 4))
    assert torch.equal(make_segmenter(decision="sigmoid").scores(logits), logits.sigmoid())


def test_normalise_takes_bytes_to_zero_mean_and_unit_deviation(make_segmenter):
    segmenter = make_segmenter(mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 0.25))
    pixels = torch.tensor([255, 255, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.allclose(segmenter.normalise(pixels).flatten(), torch.tensor([1.0, 1.0, -4.0]))


def test_logits_are_resized_once_and_in_float32(make_segmenter):
    output = make_segmenter().eval()(images())
    assert output.logits_at((64, 64)) is output.logits_at((64, 64))
    assert resize(output.logits.bfloat16(), (8, 8)).dtype == torch.float32
    assert resize(output.logits.double(), (8, 8)).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet20"}, r"unknown backbone 'resnet20'; did you mean 'resnet"),
        ({"head": "deeplabv4"}, r"unknown head 'deeplabv4'; did you mean 'deeplabv3'"),
        ({"output_stride": 4}, r"backbone\.output_stride\n.*8, 16 or 32"),
        ({"decision": "maximum"}, r"decision"),
        ({"backbon": "resnet18"}, r"backbon"),
    ],
    ids=str,
)
def test_options_that_name_no_network_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet20",), r"network\.backbone: unknown backbone 'resnet20'; did you mean 'resnet"),
        (("resnet18", 4), r"network\.backbone\.output_stride: 4 is not possible; choose 8, 16 or 32"),
    ],
    ids=str,
)
def test_a_backbone_that_is_none_is_told(arguments, message):
    with pytest.raises(ContsegError, match=message):
        ResNet(*arguments)


def test_an_unknown_tap_names_the_network_and_its_taps(make_segmenter):
    with pytest.raises(ContsegError, match=r"tap 'aspp1': resnet18 with deeplabv3-mib has stage1, .*, head, logits"):
        make_segmenter().eval()(images(), taps=("stage1", "aspp1"))


def deviation(weight):
    return weight.std().item()


class TestWithoutPublishedWeights:
    """A ResNet's second 3x3 convolution, 64 to 64 channels: fan in and fan out are 576."""

    @pytest.mark.parametrize(
        ("initialisation", "expected"),
        [({}, 1 / 1728**0.5), ("torch", 1 / 1728**0.5), ("he", (2 / 576) ** 0.5), ("xavier", (2 / 576) ** 0.5)],
        ids=str,
    )
    def test_a_resnet_starts_as_the_option_says_and_by_default_as_pytorch(self, initialisation, expected):
        torch.manual_seed(0)
        chosen = {"initialisation": initialisation} if initialisation else {}
        segmenter = Segmenter(NetworkOptions(backbone="resnet18", head_width=8, **chosen), [3])
        weight = segmenter.backbone.get_submodule("layer1.1.conv2").weight
        assert deviation(weight) == pytest.approx(expected, rel=0.02)
        assert (weight.abs().max() <= 1 / 576**0.5) == (chosen.get("initialisation", "torch") == "torch")

    @pytest.mark.parametrize(
        ("head", "initialisation", "expected"),
        [
            ("deeplabv3-mib", None, (2 * 2 / 1.0001 / (512 + 64)) ** 0.5),  # Xavier with the gain of its leaky ReLU
            ("deeplabv3-ssul", None, (2 / 512) ** 0.5),  # He
            ("deeplabv3", None, 1 / (3 * 512) ** 0.5),  # PyTorch
            ("deeplabv3-mib", "torch", 1 / (3 * 512) ** 0.5),
            ("deeplabv3", "he", (2 / 512) ** 0.5),
        ],
        ids=str,
    )
    def test_a_head_starts_as_published_unless_told_otherwise(self, head, initialisation, expected):
        torch.manual_seed(0)
        options = NetworkOptions(backbone="resnet18", head=head, head_width=64, head_initialisation=initialisation)
        first = next(part for part in Segmenter(options, [3]).head.modules() if isinstance(part, torch.nn.Conv2d))
        assert first.weight.shape[1] == 512
        assert deviation(first.weight) == pytest.approx(expected, rel=0.03)


def test_the_segmenter_knows_no_concrete_part_and_its_forward_fits_a_screen():
    source = inspect.getsource(inspect.getmodule(Segmenter))
    imported = re.findall(r"from contseg\.models\.(?:backbones|heads)\.(\w+)", source)
    assert imported == ["backbone"]
    assert "isinstance(" not in source
    body = inspect.getsource(Segmenter.forward).rpartition('"""')[2]
    assert len(body.strip().splitlines()) <= 15


class Halves(Backbone):
    """The least that a backbone is."""

    channels = (3, 3, 3, 3)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images_BCHW):
        return [torch.nn.functional.avg_pool2d(self.scale(images_BCHW), stride) for stride in (4, 8, 16, 32)]


class HalvesOptions(BackboneOptions):
    name: str = "halves"

    def build(self):
        return Halves()


class Last(Head):
    """The least that a head is."""

    uses, width = (3,), 3

    def forward(self, maps):
        return maps[0]


class LastOptions(HeadOptions):
    name: str = "last"

    def make(self, below):
        return Last()


@pytest.mark.parametrize("freeze", ["none", "stage1", "all"])
def test_a_backbone_and_a_head_that_only_have_a_forward_make_a_segmenter(freeze):
    segmenter = Segmenter(NetworkOptions(backbone=HalvesOptions(freeze=freeze), head=LastOptions()), [3])
    segmenter.grow(1, "random")
    segmenter.freeze_unused(())
    output = segmenter(images(), taps=("stage1", "logits"))
    assert output.logits.shape == (2, 4, 2, 2)
    assert segmenter.backbone.scale.weight.requires_grad == (freeze == "none")
