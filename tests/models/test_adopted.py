"""A network whose logits come from a last convolution becomes a segmenter that grows, and old logits keep their bits."""

import copy

import pytest
import torch
from torch import nn

import contseg
from contseg.errors import ContsegError
from contseg.methods.registry import make_method
from contseg.models.adopted.options import MODELS
from contseg.models.adopted.segmenter import AdoptedSegmenter, adopt
from contseg.models.make import make_segmenter
from tests.kinds import PIXELS
from tests.trees.foreign import NAMES

CLASSES = contseg.ClassTable.of(NAMES)


class Toy(nn.Module):
    """A network with a last convolution of any kind, an unused layer, and an output of any kind."""

    def __init__(self, kernel: int = 1, bias: bool = True, channels: int = 3, outputs: int = 4, kind: str = "tensor"):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.decode_head = nn.Module()
        self.decode_head.classifier = nn.Conv2d(8, outputs, kernel, padding=kernel // 2, bias=bias)
        self.unused = nn.Linear(2, 2)
        self.kind = kind

    def forward(self, images):
        logits = self.decode_head.classifier(self.body(images))
        logits = nn.functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=True)
        return {"tensor": logits, "tuple": (logits, None), "out": {"out": logits}, "logits": {"logits": logits}}[self.kind]


def toy() -> nn.Module:
    """A function for `register_model`."""
    return Toy()


class Sum(nn.Module):
    """Two maps with a classifier each, whose results are added, as in LR-ASPP."""

    def __init__(self):
        super().__init__()
        self.body, self.low, self.high = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(12, 4, 1)

    def forward(self, images):
        body = self.body(images)
        return self.low(body[:, :8].relu()) + self.high(body)


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def registered(forgotten):
    return MODELS.register(toy, "toy")


def logits(module, images):
    with torch.no_grad():
        output = module.eval()(images)
    return output.logits if isinstance(module, contseg.Segmenter) else output


class TestOldLogitsKeepTheirBits:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("kernel", [1, 3])
    def test_after_adoption_and_after_growing_twice(self, images, kernel, bias):
        module = Toy(kernel, bias)
        before = logits(module, images)
        segmenter = adopt(module, NAMES)
        assert torch.equal(logits(segmenter, images), before)
        for count in (1, 3):
            segmenter.grow(count, "random")
        assert segmenter.widths == [4, 1, 3]
        assert {tuple(step.kernel_size) for step in segmenter.classifier.steps} == {(kernel, kernel)}
        assert torch.equal(logits(segmenter, images)[:, :4], before)
        assert torch.equal(logits(module, images), before), "the module is copied"

    def test_where_two_classifiers_are_added(self, images):
        module = Sum()
        segmenter = adopt(module, NAMES, classifier=["low", "high"])
        segmenter.grow(2, "random")
        assert torch.equal(logits(segmenter, images)[:, :4], logits(module, images))
        assert segmenter(images, taps=("head",)).features["head"].shape[1] == 20

    @pytest.mark.parametrize("kind", ["tuple", "out", "logits"])
    def test_for_every_kind_of_output(self, images, kind):
        module = Toy()
        before = logits(module, images)
        module.kind = kind
        assert torch.equal(logits(adopt(module, NAMES), images), before)

    def test_in_a_deep_copy_which_grows_alone(self, images):
        segmenter = adopt(Toy(), NAMES)
        before = logits(segmenter, images)
        other = copy.deepcopy(segmenter)
        other.grow(1, "random")
        with torch.no_grad():
            other.classifier.steps[0].bias += 1
        assert torch.equal(logits(segmenter, images), before)
        assert logits(other, images).shape[1] == 5


def test_a_single_output_gets_a_background_so_that_its_sigmoid_is_a_softmax(images):
    module = Toy(3, outputs=1)
    segmenter = adopt(module, ["background", "crack"]).eval()
    scores = segmenter.scores(logits(segmenter, images))
    assert torch.allclose(scores[:, 1:], logits(module, images).sigmoid(), atol=1e-6)
    with pytest.raises(ContsegError, match=r"has 1 output, for 1 class name; name the background and the class"):
        adopt(module, ["crack"])


def test_growing_from_background_keeps_the_probabilities_of_old_classes(images):
    segmenter = adopt(Toy(3), NAMES)
    before = logits(segmenter, images).softmax(dim=1)
    segmenter.grow(2, "background")
    assert torch.allclose(logits(segmenter, images).softmax(dim=1)[:, 1:4], before[:, 1:], atol=1e-6)


def test_the_tap_head_is_the_input_of_the_last_convolution(images):
    segmenter = adopt(Toy(), NAMES).eval()
    output = segmenter(images, taps=("logits", "head"))
    assert torch.equal(output.features["logits"], output.logits)
    assert torch.equal(output.features["head"], segmenter.backbone.network.body(images))
    with pytest.raises(ContsegError, match=r"tap 'stage4': a module in memory has head, logits"):
        segmenter(images, taps=("stage4",))


class TestSizes:
    def test_images_are_padded_to_a_multiple_and_logits_cut_again(self, images):
        segmenter = adopt(Toy(), NAMES, multiple=16).eval()
        output = segmenter(images[:, :, :13, :17], taps=("head",))
        assert output.logits.shape[2:] == (13, 17)
        assert output.features["head"].shape[2:] == (7, 9)

    def test_images_of_a_multiple_keep_their_bits(self, images):
        module = Toy()
        assert torch.equal(logits(adopt(module, NAMES, multiple=8), images), logits(module, images))

    def test_images_are_resized_for_a_network_of_a_fixed_size(self, images):
        segmenter = adopt(Toy(), NAMES, size=(8, 8)).eval()
        assert segmenter(images).logits.shape[2:] == (8, 8)
        assert segmenter(images).logits_at((16, 24)).shape[2:] == (16, 24)


class TestFiles:
    def test_a_registered_network_is_saved_and_loaded(self, images, registered, tmp_path):
        segmenter = adopt(Toy(), NAMES, name="toy", mean=(0.5, 0.5, 0.5))
        segmenter.grow(1, "random")
        more = contseg.ClassTable.of([*NAMES, "pig"])
        loaded, table = contseg.load_pretrained(contseg.save_pretrained(tmp_path / "new", segmenter, more))
        assert torch.equal(logits(loaded, images), logits(segmenter, images))
        assert (table, loaded.options, loaded.widths) == (more, segmenter.options, [4, 1])
        assert loaded.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).mean() > 2

    def test_others_are_not_saved_and_nothing_is_lost(self, registered, tmp_path):
        contseg.save_pretrained(tmp_path, adopt(Toy(), NAMES, name="toy"), CLASSES)
        with pytest.raises(ContsegError, match=r"a module in memory cannot be saved.*register_model.*name=NAME"):
            contseg.save_pretrained(tmp_path, adopt(Toy(), NAMES), CLASSES)
        assert contseg.load_pretrained(tmp_path)[1] == CLASSES

    def test_a_name_that_is_not_registered_is_an_error(self, registered):
        with pytest.raises(ContsegError, match=r"network.backbone.library: unknown model 'tay'; did you mean 'toy'"):
            adopt(Toy(), NAMES, name="tay")

    def test_options_make_the_network_again_for_any_widths(self, registered):
        made = make_segmenter(adopt(Toy(), NAMES, name="toy").options, [2, 2, 1])
        assert isinstance(made, AdoptedSegmenter)
        assert made.widths == [2, 2, 1]


class TestErrors:
    @pytest.mark.parametrize(
        ("module", "options", "expected"),
        [
            (Toy(), {"classifier": "head"}, r"Toy has no 'head'.*classifier=NAME.*end with body.0, decode_head.classifier"),
            (Toy(), {"classifier": "body"}, r"'body' is a Sequential, not a plain Conv2d"),
            (nn.Linear(3, 4), {}, r"Linear has no 'decode_head.classifier'.*has no convolution"),
            (Toy(outputs=5), {}, r"decode_head.classifier of Toy has 5 outputs, for 4 class names"),
            (Toy(channels=4), {}, r"Toy: reads 4 channels; only RGB images are supported"),
            (Sum(), {"classifier": ["low", "high", "body"]}, r"only two 1x1 convolutions"),
        ],
    )
    def test_are_one_line_that_names_what_to_do(self, module, options, expected):
        with pytest.raises(ContsegError, match=expected) as error:
            adopt(module, NAMES, **options)
        assert "\n" not in str(error.value)

    def test_a_convolution_that_does_not_compute_the_logits(self, images):
        module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1))
        with pytest.raises(ContsegError, match=r"0 has 4 outputs,.*returns 6; name the convolution that computes"):
            adopt(module, NAMES, classifier="0")(images)

    def test_an_output_that_is_no_logits(self, images):
        module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
        with pytest.raises(ContsegError, match=r"the output of the network is a Tensor; expected logits"):
            adopt(module, NAMES, classifier="0")(images)


def test_parameters_without_effect_are_frozen_so_that_ranks_do_not_wait_for_them():
    segmenter = adopt(Toy(), NAMES).train()
    segmenter.freeze_unused(("logits",))
    frozen = {name for name, parameter in segmenter.named_parameters() if not parameter.requires_grad}
    assert frozen == {"backbone.network.unused.weight", "backbone.network.unused.bias"}
    assert segmenter.backbone.network.body[1].training
    assert segmenter.backbone.network.body[1].num_batches_tracked == 0


@pytest.mark.parametrize("name", PIXELS)
def test_a_method_either_reads_only_the_head_and_the_logits_or_fails_before_training(name):
    network, method = adopt(Toy(), NAMES).options, make_method(name)
    if {*method.taps, *method.first_taps} <= {"head", "logits"} and not (
        method.needs_unknown or "learned" not in method.backgrounds
    ):
        method.check(network, [])
    else:
        with pytest.raises(ContsegError, match=r"a module in memory|network\.(decision|background)|pyramids"):
            method.check(network, [])
