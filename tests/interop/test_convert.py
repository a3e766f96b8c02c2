"""Every code base by its names, and the classes of every output."""

import json
from pathlib import Path

import pytest
import torch

from contseg.errors import ContsegError
from contseg.interop.convert import CONVERTERS, classes_of_outputs, convert_file, named_table, recognise
from contseg.models.backbones.resnet import ResNet
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

GOLDENS = Path(__file__).parent.parent / "parity" / "goldens"
MANIFESTS = {
    "csseg": ("csseg/manifest_r101_iabn_aspp_16_1_1", "csseg"),
    "mib": ("mib/manifest_r101_iabn_deeplab_16_1_1", "mib"),
    "plop": ("plop/manifest_r101_iabn_deeplab_16_1_1", "mib"),
    "sdr, in place": ("sdr/manifest_r101_iabn_deeplab_16_1_1", "mib"),
    "sdr": ("sdr/manifest_r101_bn_deeplab_16_1_1", "sdr"),
    "idec": ("idec/manifest_deeplabv3_r101", "idec"),
    "lag": ("idec/manifest_deeplabv3_r101", "idec"),
    "ssul": ("idec/manifest_deeplabv3_r101", "ssul"),
    "dkd": ("dkd/manifest_r101_dkd_15_1_1_1_1_1", "dkd"),
    "star": ("star/manifest_r101_star_15_1_1_1_1_1", "dkd"),
    "barm": ("barm/manifest_r101_barm_15_1_1", "barm"),
    "ssseg": ("idrnet/manifest_fcn", "ssseg"),
    "eomt": ("eomt/manifest_vit_reg4_p16", "eomt"),
    "eomt, rotary": ("eomt/manifest_dinov3_p16", "eomt"),
    "mbs": ("mbs/manifest_vit_b16_mbs_15_1", "mbs"),
}


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    """Tensors of a manifest's shapes that take no memory; SSUL's are IDEC's without the pyramids over early stages."""
    rows = json.loads((GOLDENS / f"{MANIFESTS[name][0]}.json").read_text())
    rows = rows if isinstance(rows, list) else rows["manifest"]
    kinds = {"float32": torch.float32, "int64": torch.int64}
    made = {row[0]: torch.empty(row[1], dtype=kinds[row[2]], device="meta") for row in rows}
    for key, value in made.items():
        if key == "encoder.backbone.pos_embed":  # of a square, as published
            made[key] = value.new_empty(1, 25, value.shape[2])
    return {key: value for key, value in made.items() if name != "ssul" or "aspp_l" not in key}


@pytest.mark.parametrize("name", MANIFESTS)
def test_it_is_recognised_and_converted(name):
    tensors = tensors_of(name)
    assert recognise(tensors) == MANIFESTS[name][1]
    source = name.partition(",")[0]
    with torch.device("meta"):
        segmenter, widths = CONVERTERS[source](tensors, source)
    assert segmenter.widths == widths
    assert segmenter.options.unknown == (source in ("idec", "lag", "ssul"))
    if source not in ("ssseg", "eomt"):
        assert sum(widths) - segmenter.options.unknown in (16, 17, 18, 21)


def test_every_code_base_is_tried():
    assert {name.partition(",")[0] for name in MANIFESTS} == set(CONVERTERS)


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("mistake", ["missing", "unexpected", "other width"])
def test_a_tensor_that_does_not_fit_is_named(name, mistake):
    tensors = tensors_of(name)
    several = [key for key, value in tensors.items() if value.ndim == 4 and "classifier" not in key and "cls" not in key]
    key = several[min(5, len(several) - 1)]
    if mistake == "missing":
        del tensors[key]
    elif mistake == "unexpected":
        tensors["more.weight"] = torch.empty(1, device="meta")
    else:
        tensors[key] = torch.empty(3, 3, 3, 3, device="meta")
    source = name.partition(",")[0]
    told = {"missing": "missing", "unexpected": "unexpected", "other width": r"is \(3, 3, 3, 3\) instead of"}[mistake]
    with torch.device("meta"), pytest.raises(ContsegError, match=rf"weights: do not fit \(.*{told}") as caught:
        CONVERTERS[source](tensors, source)
    assert "\n" not in str(caught.value)


def test_other_names_are_told(tmp_path):
    with pytest.raises(
        ContsegError, match=r"names such as conv1\.weight, fc\.bias match no code base; supported: barm, csseg"
    ):
        recognise(["conv1.weight", "fc.bias"])
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "file.pth")
    with pytest.raises(ContsegError, match=r"file\.pth: weights: names such as"):
        convert_file(tmp_path / "file.pth")
    with pytest.raises(ContsegError, match=r"--from: unknown converter 'plopp'; did you mean 'plop'\?"):
        convert_file(tmp_path / "file.pth", "plopp")
    for source in CONVERTERS:
        with pytest.raises(ContsegError, match=r"file\.pth: weights: "):
            convert_file(tmp_path / "file.pth", source)


def toolbox_file(path, prefix, beside=()):
    """A small network under the names of the toolbox, behind a prefix; returns it."""
    torch.manual_seed(0)
    segmenter = Segmenter(NetworkOptions(backbone="resnet50", head="fcn", head_width=4, width=64, slope=0.0), [2])
    theirs = {}
    for name, value in segmenter.state_dict().items():
        name = name.replace("backbone.", "backbone_net.").replace("classifier.steps.0.", "decoder.7.")
        name = name.replace("head.first.", "decoder.").replace("head.second.0.", "decoder.3.")
        theirs[prefix + name.replace("head.second.1.", "decoder.4.")] = value
    torch.save({"model": theirs | dict.fromkeys(beside, torch.zeros(1))}, path)
    return segmenter


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "module.model._orig_mod."])
def test_a_segmenter_is_found_behind_a_prefix(tmp_path, prefix):
    segmenter = toolbox_file(tmp_path / "file.pth", prefix)
    found, source = convert_file(tmp_path / "file.pth")
    assert source == "ssseg"
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in segmenter.state_dict().items())


def test_what_stands_beside_a_segmenter_is_named(tmp_path):
    toolbox_file(tmp_path / "file.pth", "model.", ["criterion.weight"])
    told = r"names of ssseg are below model\., but 1 others are not, such as criterion\.weight; save only .*"
    with pytest.raises(ContsegError, match=told):
        convert_file(tmp_path / "file.pth")


def test_a_backbone_is_told_to_be_one(tmp_path):
    torch.save(
        {f"model.{name}": value for name, value in ResNet("resnet18", width=4).state_dict().items()}, tmp_path / "a.pth"
    )
    with pytest.raises(ContsegError, match=r"a\.pth: weights: are those of a backbone only; .* backbone_weights=FILE"):
        convert_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("classes", "outputs", "split", "order", "count", "last", "background"),
    [
        ("voc", 21, None, "natural", 21, "tvmonitor", "annotated"),
        ("voc", 20, None, "natural", 20, "tvmonitor", "none"),
        ("voc", 16, "15-1", "natural", 16, "person", "annotated"),
        ("voc", 18, "15-1", "natural", 18, "sheep", "annotated"),
        ("voc", 16, "15-1", "b", 16, "diningtable", "annotated"),
        ("voc", 21, "offline", "natural", 21, "tvmonitor", "annotated"),
        ("ade20k", 151, None, "natural", 151, "flag", "unlabelled"),
        ("ade20k", 101, "100-50", "natural", 101, None, "unlabelled"),
        ("ade20k", 150, None, "natural", 150, "flag", "none"),
        ("cityscapes", 19, None, "natural", 19, "bicycle", "none"),
        ("coco-stuff-10k", 182, None, "natural", 182, None, "none"),
        ("coco-stuff-164k", 182, None, "natural", 182, None, "none"),
        ("lip", 20, None, "natural", 20, None, "annotated"),
        ("pascal-context", 59, None, "natural", 59, None, "none"),
        ("isprs", 5, None, "natural", 5, None, "none"),
        ("digits", 11, None, "natural", 11, "nine", "annotated"),
    ],
)
def test_outputs_get_their_classes(classes, outputs, split, order, count, last, background):
    table = classes_of_outputs(classes, outputs, split=split, order=order)
    assert len(table) == count
    assert last is None or table.names[-1] == last
    assert table.background == background


@pytest.mark.parametrize(
    ("classes", "outputs", "split", "message"),
    [
        (
            "voc",
            18,
            None,
            r"--classes voc: 21 classes \(20 without background\), but the network has 18 outputs; .* --split",
        ),
        ("lip", 30, None, r"--classes lip: 20 classes \(19 without background\), but the network has 30 outputs"),
        (
            "voc",
            17,
            "15-5",
            r"--split 15-5: 16, 21 classes of voc after its steps, but the network has 17 outputs",
        ),
        ("voc", 16, "15-2", r"scenario\.split: '15-2' does not fit 20 classes"),
        ("vok", 16, None, r"--classes: 'vok' is neither a dataset nor a list of names \(\.txt\); did you mean 'voc'\?"),
    ],
)
def test_classes_that_do_not_fit_are_told_with_both_numbers(classes, outputs, split, message):
    with pytest.raises(ContsegError, match=message):
        classes_of_outputs(classes, outputs, split=split)


def test_own_lists_name_the_outputs(tmp_path):
    (tmp_path / "classes.txt").write_text("background\nroof\nroad\n")
    for place in (tmp_path, tmp_path / "classes.txt"):
        assert named_table(str(place)).names == ("background", "roof", "road")
        assert classes_of_outputs(str(place), 2).names == ("roof", "road")
    (tmp_path / "classes.txt").write_text("background\nroof\nroof\n")
    with pytest.raises(ContsegError, match=r"classes\.txt: class table: the name 'roof' occurs more than once"):
        named_table(str(tmp_path / "classes.txt"))


def test_the_whole_way_from_a_file(tmp_path):
    """A small network of the toolbox: written in its names, read back, every number in its place."""
    torch.manual_seed(0)
    backbone = {"name": "resnet50", "slope": 0.0, "contracted": True, "output_stride": 8}
    options = NetworkOptions(backbone=backbone, head={"name": "fcn", "width": 4})
    segmenter = Segmenter(options, [5]).eval()
    torch.nn.init.normal_(segmenter.classifier.steps[0].bias)
    theirs = {}
    for name, value in segmenter.state_dict().items():
        name = name.replace("backbone.", "backbone_net.").replace("classifier.steps.0.", "decoder.7.")
        name = name.replace("head.first.", "decoder.").replace("head.second.0.", "decoder.3.")
        theirs[name.replace("head.second.1.", "decoder.4.")] = value
    torch.save({"model": theirs, "cur_epoch": 3}, tmp_path / "file.pth")
    found, source = convert_file(tmp_path / "file.pth")
    assert source == "ssseg"
    assert found.options == options
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(image).logits, segmenter(image).logits)
