"""EoMT: what enters and leaves the last blocks, what is trained, how attention opens, and what a trunk must have."""

import copy
import re

import pytest
import torch
from pydantic import ValidationError

from contseg.errors import ContsegError
from contseg.models.backbones.lora import LowRankLinear
from contseg.models.backbones.options import ViTOptions
from contseg.models.eomt.annealing import attention_mask, default_spans, mask_probability, visible_patches
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.held import start_points
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions, ReadoutOptions
from contseg.models.output import score_map

TINY = {"patch": 8, "options": {"embed_dim": 16, "num_heads": 2}}
TRUNKS = ["dinov2_reg_tiny", "dinov3_tiny"]


def tiny(trunk="dinov2_reg_tiny", classes=3, head=None, **backbone) -> EoMTSegmenter:
    torch.manual_seed(0)
    options = NetworkOptions(
        backbone={"name": trunk, **TINY, **backbone}, head={"name": "eomt", "queries": 6, "blocks": 2, **(head or {})}
    )
    return make_segmenter(options, [classes])


def images(size=(64, 80), count=2) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (33, 47), (5, 6)])
def test_masks_of_images_of_any_size_cover_them(trunk, size):
    segmenter = tiny(trunk, size=64).eval()
    with torch.no_grad():
        output = segmenter(images(size), taps=segmenter.taps)
    stride = tuple(-(-side // 4) for side in size)
    patches = tuple(-(-side // 8) for side in size)
    assert output.masks.class_logits.shape == (2, 6, 4)
    assert output.masks.mask_logits.shape == (2, 6, *stride)
    assert output.logits_at(size).shape == (2, 3, *size)
    shapes = {name: tuple(value.shape[1:]) for name, value in output.features.items()}
    assert shapes == {
        **dict.fromkeys(("stage1", "stage2", "stage3", "stage4", "tokens"), (16, *patches)),
        "head": (16, *stride),
        "logits": (3, *stride),
        "queries": (3, 6, 16),
    }


@pytest.mark.parametrize(("patch", "stride"), [(4, 2), (8, 4), (14, 7), (16, 4), (32, 4)])
def test_masks_have_a_stride_that_follows_from_the_patch(patch, stride):
    size = (2 * patch, 3 * patch)
    output = tiny(patch=patch).eval()(images(size))
    assert output.masks.mask_logits.shape[2:] == (size[0] // stride, size[1] // stride)


def test_random_weights_let_the_classes_of_queries_depend_on_the_image():
    """With weights of a small deviation, narrow blocks are near the identity, and classes hardly learn."""
    segmenter = tiny(options={}).eval()
    with torch.no_grad():
        logits = segmenter(images(count=8)).masks.class_logits
    assert logits.std(dim=0).mean() > 0.1 * logits.std(dim=1).mean()


def test_sizes_with_published_weights_start_from_those_of_timm():
    trunk = tiny("dinov2_reg_small", options={"embed_dim": 64, "depth": 2, "num_heads": 2}).backbone.model
    assert trunk.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert trunk.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_batch_norms_of_a_stem_have_the_momentum_of_the_backbone():
    norms = [one for one in tiny(stem=1, norm_momentum=0.5).modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.5}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_convolutions_embed_patches_of_images_of_any_size(trunk):
    segmenter = tiny(trunk, size=64, stem=1).eval()
    output = segmenter(images((33, 47)), taps=("tokens",))
    assert output.features["tokens"].shape == (2, 16, 5, 6)
    assert output.masks.mask_logits.shape == (2, 6, 9, 12)
    segmenter = tiny(trunk, stem=1, freeze="stage1").train()
    stem = segmenter.backbone.model.patch_embed.proj
    assert not any(one.requires_grad for one in stem.parameters())
    assert not any(module.training for module in stem.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_logits_are_logarithms_of_the_scores_and_computed_when_read():
    output = tiny().eval()(images())
    assert output._logits is None
    torch.testing.assert_close(output.logits.exp(), score_map(output.masks))
    assert tiny().scores(output.logits).argmax(dim=1).equal(score_map(output.masks).argmax(dim=1))


@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_masked_query_looks_at_its_mask_and_at_what_is_in_front(trunk):
    """A patch that no query may see, and that no later patch reads, has no effect on the class of any query."""
    segmenter = tiny(trunk, head={"blocks": 1}).eval()
    segmenter.head.probabilities = [1.0]
    visible = torch.zeros(1, 6, 80, dtype=torch.bool)
    visible[:, :, 0] = True
    trunk = segmenter.backbone

    def classes(mask, moved):
        tokens = trunk.run(trunk.embed(images(count=1)), 0, 3)
        tokens.values = tokens.values.clone()
        tokens.values[:, -1] += moved * torch.arange(16)
        tokens = trunk.with_queries(tokens, segmenter.head.q.weight)
        given = None if mask is None else attention_mask(mask, tokens.values.shape[1])
        return segmenter.classifier(trunk.normalised(trunk.run(tokens, 3, 4, given)).queries)

    with torch.no_grad():
        assert torch.equal(classes(visible, 0.0), classes(visible, 5.0))
        assert not torch.equal(classes(None, 0.0), classes(None, 5.0))


def test_a_mask_is_visible_where_it_is_positive_after_resizing():
    masks = torch.full((1, 1, 4, 4), -1.0)
    masks[0, 0, :2, 2:] = 1.0
    assert visible_patches(masks, (2, 2)).tolist() == [[[False, True, False, False]]]
    assert not visible_patches(masks.requires_grad_(), (2, 2)).requires_grad


def test_attention_opens_one_block_after_the_other():
    segmenter = tiny(head={"blocks": 3})
    seen = []
    for update in range(11):
        segmenter.anneal(0, update, 10)
        seen.append(list(segmenter.head.probabilities))
    assert seen[0] == [1.0, 1.0, 1.0]
    assert seen[-1] == [0.0, 0.0, 0.0]
    for block, (start, end) in enumerate(default_spans(3)):
        assert [one[block] for one in seen] == [mask_probability(update, start * 10, end * 10) for update in range(11)]
    assert sorted(seen, reverse=True) == seen


@pytest.mark.parametrize(("masked", "later", "first"), [("first", 0.0, 1.0), ("every", 1.0, 1.0), ("none", 0.0, 0.0)])
def test_later_steps_are_masked_as_the_options_say(masked, later, first):
    segmenter = tiny(head={"masked": masked})
    segmenter.anneal(0, 0, 10)
    assert segmenter.head.probabilities == [first] * 2
    segmenter.anneal(1, 0, 10)
    assert segmenter.head.probabilities == [later] * 2


def test_the_state_remembers_how_far_attention_was_opened():
    segmenter, other = tiny(), tiny()
    segmenter.head.probabilities = [0.25, 0.75]
    other.load_state_dict(segmenter.state_dict())
    assert other.head.probabilities == [0.25, 0.75]
    assert copy.deepcopy(segmenter).head.probabilities == [0.25, 0.75]


def test_evaluation_draws_nothing_and_masks_blocks_above_one_half():
    segmenter = tiny().eval()
    answers = {}
    for probability in (0.0, 0.4, 0.6, 1.0):
        segmenter.head.probabilities = [probability] * 2
        before = torch.get_rng_state()
        with torch.no_grad():
            answers[probability] = segmenter(images()).masks.class_logits
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(answers[0.0], answers[0.4])
    assert torch.equal(answers[0.6], answers[1.0])
    assert not torch.equal(answers[0.4], answers[0.6])


def test_training_draws_only_while_attention_is_being_opened():
    segmenter = tiny().train()
    for probability, draws in ((1.0, False), (0.5, True), (0.0, False)):
        segmenter.head.probabilities = [probability] * 2
        before = torch.get_rng_state()
        segmenter(images())
        assert torch.equal(before, torch.get_rng_state()) != draws


TRAINED = {
    "tuned": ({}, lambda name: True),
    "frozen": ({"freeze": "all"}, lambda name: not name.startswith("backbone.")),
    "lora": ({"lora": 2}, lambda name: not name.startswith("backbone.") or ".lora_" in name),
    "lora and stem": (
        {"lora": 2, "stem": 1},
        lambda name: not name.startswith("backbone.") or ".lora_" in name or ".patch_embed." in name,
    ),
    "frozen stem": ({"stem": 1, "lora": 2, "freeze": "stage1"}, lambda name: ".lora_" in name or "backbone." not in name),
}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("kind", TRAINED)
def test_what_of_the_trunk_is_trained(trunk, kind):
    keys, learns = TRAINED[kind]
    segmenter = tiny(trunk, **keys)
    for module in segmenter.modules():
        if isinstance(module, LowRankLinear):  # at zero, nothing would reach the other matrix
            torch.nn.init.normal_(module.lora_up)
    before = {name: one.clone() for name, one in segmenter.named_parameters()}
    for network in (segmenter, copy.deepcopy(segmenter).requires_grad_(True).train()):  # what is done between two steps
        assert {name for name, one in network.named_parameters() if one.requires_grad} == {*filter(learns, before)}
    output = segmenter(images())
    sum(one.logits.square().mean() for one in (output, *output.auxiliary)).backward()
    torch.optim.SGD([one for one in segmenter.parameters() if one.requires_grad], lr=1.0).step()
    moved = {name for name, one in segmenter.named_parameters() if not torch.equal(one, before[name])}
    assert moved == {*filter(learns, before)}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_low_rank_updates_start_as_nothing_and_fit_the_weights_of_a_plain_trunk(trunk):
    plain, updated = tiny(trunk).eval(), tiny(trunk, lora=3).eval()
    missing, unexpected = updated.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert len(missing) == 4 * 4
    assert all(".lora_" in name for name in missing)
    with torch.no_grad():
        torch.testing.assert_close(updated(images()).logits, plain(images()).logits)
    assert torch.nn.Module.state_dict(updated)["backbone.model.blocks.0.attn.qkv.lora_down"].shape == (3, 16)


def test_a_read_out_takes_the_place_of_masks():
    segmenter = tiny()
    segmenter.use_readout(ReadoutOptions(tap="head"))
    segmenter.freeze_unused(())
    output = segmenter.eval()(images(), taps=("head", "stage4"))
    assert output.masks is None
    assert output.logits.shape == (2, 3, 16, 20)
    segmenter.grow(2, "random")
    assert segmenter(images()).logits.shape[1] == 5
    again = make_segmenter(segmenter.options, segmenter.widths)
    again.load_state_dict(segmenter.state_dict())
    assert torch.equal(again.eval()(images()).logits, segmenter(images()).logits)


def test_only_the_newest_classes_learn_if_all_else_is_frozen():
    segmenter = tiny()
    segmenter.grow(1, "random")
    segmenter.freeze_all_but(-1)
    learning = [name for name, one in segmenter.named_parameters() if one.requires_grad]
    assert learning == ["classifier.steps.1.weight", "classifier.steps.1.bias"]
    segmenter.freeze()
    segmenter.freeze_old_classifiers()
    frozen = [name for name, one in segmenter.named_parameters() if not one.requires_grad]
    assert frozen == ["classifier.steps.0.weight", "classifier.steps.0.bias"]


def test_growing_does_not_touch_what_there_is():
    segmenter = tiny()
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    segmenter.grow(1, "random")
    after = segmenter.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert sorted(after.keys() - before.keys()) == ["classifier.steps.1.bias", "classifier.steps.1.weight"]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"backbone": "resnet18"},
            "needs a plain vision transformer, and backbone is resnet18; set network.backbone=dinov2",
        ),
        ({"decision": "sigmoid"}, "masks, which have no decision: sigmoid"),
        ({"background": "constant", "decision": "sigmoid"}, "masks, which have no (background|decision)"),
        ({"auxiliary": True}, "masks, which have no auxiliary"),
        (
            {"backbone": {"name": "dinov2_reg_tiny", "size": 500}},
            "500 pixels are not a whole number of patches of 14; set 490",
        ),
        ({"backbone": {"name": "dinov2_reg_tiny", "stem": 1}}, "a patch of 14 pixels is no power of 2; set"),
        ({"head": {"name": "eomt", "annealing": [[0, 1]]}}, "1 spans for 4 blocks"),
        ({"head": {"name": "eomt", "blocks": 1, "annealing": [[0.5, 0.2]]}}, "ends before it begins"),
        ({"head": {"name": "eomt", "width": 8}}, "width"),
    ],
)
def test_options_that_do_not_fit_are_refused(network, message):
    with pytest.raises(ValidationError, match=message):
        NetworkOptions(**{"backbone": "dinov2_reg_tiny", "head": "eomt", **network})


def test_a_trunk_without_layer_scale_is_told_what_to_set():
    with pytest.raises(ContsegError, match=r"no layer scale.*options\.init_values=1e-5") as error:
        tiny(options={"init_values": 0})
    assert "\n" not in str(error.value)


def test_a_trunk_of_one_size_is_told_what_to_set():
    segmenter = tiny(size=64, options=TINY["options"] | {"dynamic_img_size": False}).eval()
    segmenter(images((64, 64)))
    with pytest.raises(ContsegError, match=re.escape("made for images of 64 x 64 pixels")) as error:
        segmenter(images((64, 80)))
    assert "data.crop" in str(error.value)


def test_more_blocks_than_there_are_and_patches_without_a_kernel_are_refused():
    with pytest.raises(ContsegError, match=r"head\.blocks: 5, and dinov2_reg_tiny has 4 blocks"):
        tiny(head={"blocks": 5})
    with pytest.raises(ValidationError, match="patch"):
        ViTOptions(name="dinov2_reg_tiny", patch=1)


def test_arguments_that_the_constructor_refuses_are_named():
    with pytest.raises(ContsegError, match=r"^network\.backbone\.options: .*'foo'\); correct or remove foo"):
        tiny(options={"foo": 7})


def test_patches_may_be_given_to_the_constructor():
    assert ViTOptions(name="dinov2_reg_tiny", size=64, options={"patch_size": [16, 16]}).token == 16


def test_nothing_of_it_can_be_kept_between_epochs_or_reserved():
    segmenter = tiny(freeze="all")
    with pytest.raises(ContsegError, match="queries pass the last blocks"):
        start_points(segmenter)
    with pytest.raises(ContsegError, match="cannot start from features"):
        segmenter.features_at(images(), ("head",))
    with pytest.raises(ContsegError, match="no classifiers of later steps"):
        segmenter.reserve([1])
