"""Class tokens: how they grow, what they see, and what is refused."""

import pytest
import torch

from contseg.errors import ContsegError
from contseg.models.class_tokens import TokenClassifier
from contseg.models.from_features import FromFeatures
from contseg.models.held import start_points
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

VIT = {"name": "vit_tiny", "embed_dim": 16, "depth": 4, "heads": 2, "grid": 4}
TOKENS = {"name": "mask-transformer", "width": 8, "heads": 2}
NETWORK = NetworkOptions(backbone=VIT, head=TOKENS)


def made(widths=(3,), **changes) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(NETWORK.changed(**changes), list(widths))


def images(size, count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def test_new_tokens_from_background_are_its_very_token():
    segmenter = made((3, 1))
    with torch.no_grad():
        for parameter in segmenter.classifier.parameters():
            parameter += torch.randn_like(parameter)
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    segmenter.grow(2, "background")
    newest = segmenter.classifier.steps[-1]
    assert segmenter.widths == [3, 1, 2]
    assert torch.equal(newest.tokens, segmenter.classifier.tokens[:1].expand(2, -1))
    assert torch.equal(newest.gain, torch.ones(2))
    assert torch.equal(newest.shift, torch.zeros(2))
    assert all(torch.equal(segmenter.state_dict()[name], value) for name, value in before.items())


def test_copies_of_the_token_of_background_have_equal_logits_until_they_learn():
    segmenter = made().eval()
    segmenter.grow(2, "background")
    logits = segmenter(images((64, 80))).logits
    torch.testing.assert_close(logits[:, 3], logits[:, 0])
    torch.testing.assert_close(logits[:, 4], logits[:, 0])


@pytest.mark.parametrize("start", ["reserved", "unknown", "auxiliary"])
def test_another_start_is_refused(start):
    with pytest.raises(
        ContsegError, match=f"grow: cannot start new classes from '{start}'; this network has background and"
    ):
        made().grow(1, start)


def test_classes_without_each_other_are_refused():
    with pytest.raises(ContsegError, match=r"network\.head: mask-transformer normalises over the classes, and there is one"):
        made((1,))
    classifier = TokenClassifier(8, [2])
    with pytest.raises(ContsegError, match="classifier: its class tokens see a whole image"):
        classifier.of_vectors(torch.zeros(1, 8))
    with pytest.raises(ContsegError, match="classifier: its class tokens see each other, so none can be reserved"):
        classifier.reserve([1])
    classifier.reserve([])
    assert not classifier.later


def test_logits_of_some_steps_are_those_of_all():
    classifier = TokenClassifier(8, [3, 2, 1]).eval()
    features = torch.randn(2, 8, 3, 4)
    every = classifier(features)
    assert torch.equal(classifier(features, slice(1, None)), every[:, 3:])
    assert torch.equal(classifier(features, slice(1)), every[:, :3])


def test_each_position_is_normalised_over_the_classes():
    logits = made((6,)).eval()(images((64, 64))).logits
    torch.testing.assert_close(logits.mean(dim=1), torch.zeros(2, 4, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits.std(dim=1), torch.ones(2, 4, 4), rtol=0, atol=0.1)


@pytest.mark.parametrize("head", [TOKENS, {"name": "fcn", "width": 8}], ids=["tokens", "fcn"])
@pytest.mark.parametrize("size", [(64, 80), (60, 50), (61, 33)])
def test_logits_of_a_padded_image_are_at_their_pixels(head, size):
    """A patch belongs to its 16 x 16 pixels, also where the image ends within one."""
    segmenter = Segmenter(NETWORK.changed(head=head), [3]).eval()
    padded = tuple(-(-side // 16) * 16 for side in size)
    image = images(size)
    whole = segmenter(torch.nn.functional.pad(image, (0, padded[1] - size[1], 0, padded[0] - size[0])))
    expected = resize(whole.logits, padded)[:, :, : size[0], : size[1]]
    found = segmenter(image)
    assert torch.equal(found.logits_at(size), expected)
    assert found.logits.shape[2:] == (size if size != padded else (size[0] // 16, size[1] // 16))


@pytest.mark.parametrize("size", [(64, 80), (60, 50)])
def test_from_kept_features_the_result_is_the_same(size):
    segmenter = made()
    segmenter.freeze("backbone", "head", norms=True)
    assert start_points(segmenter, ("patches", "tokens", "logits")) == ("head",)
    segmenter.eval()
    start = FromFeatures(segmenter.features_at(images(size), ("head",)), size)
    found, expected = segmenter(None, ("classes",), start), segmenter(images(size), ("classes",))
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.features["classes"], expected.features["classes"])


def test_a_step_can_train_its_tokens_alone():
    segmenter = made((3, 1))
    segmenter.freeze_all_but(-1)
    learning = [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad]
    assert learning == [f"classifier.steps.1.{part}" for part in ("tokens", "gain", "shift")]


def test_the_taps_are_those_of_the_classes():
    output = made((3, 2)).eval()(images((60, 50)), taps=("patches", "classes", "tokens", "patch_logits", "logits"))
    assert {name: tuple(value.shape) for name, value in output.features.items()} == {
        "patches": (2, 8, 4, 4),
        "classes": (2, 5, 8),
        "tokens": (2, 5, 8),
        "patch_logits": (2, 5, 4, 4),
        "logits": (2, 5, 60, 50),
    }


def test_a_readout_has_no_class_tokens():
    segmenter = made()
    segmenter.use_readout(NetworkOptions(readout={"tap": "head"}).readout)
    assert "patches" not in segmenter.taps
    assert segmenter(images((64, 64))).logits.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unknown": True}, "unknown: the classes of mask-transformer are tokens that see each other"),
        ({"background": "constant"}, "background: constant has no output for background, which head.name=mask-transformer"),
        ({"head": {"heads": 3}}, "heads: 3 do not divide 8 channels; give a divisor of width"),
        ({"head": {"hidden": True}}, "mask-transformer has no key 'hidden'"),
        ({"backbone": {"window": 7}}, "vit_tiny has no key 'window' .*it is a key of swin_tiny"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        NETWORK.changed(**changes)


def test_heads_of_the_backbone_must_divide_its_channels():
    with pytest.raises(
        ContsegError, match=r"network\.backbone: vit_tiny cannot be made of its options \(3 heads do not divide"
    ):
        made(backbone={"heads": 3})
