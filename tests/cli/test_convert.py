"""Published files and folders of segmenters on the command line: convert, predict, evaluate, and what goes wrong."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.engine.run import Run
from contseg.interop.pretrained import load_pretrained, save_pretrained
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from tests.engine.runs import command, learn, lines, tiny_recipe


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file in the toolbox's names: a small head on a ResNet-50, 21 outputs."""
    torch.manual_seed(0)
    options = NetworkOptions(backbone="resnet50", head="fcn", head_width=4, contracted=True, output_stride=8)
    theirs = {}
    for name, value in Segmenter(options, [21]).state_dict().items():
        name = name.replace("backbone.", "backbone_net.").replace("classifier.steps.0.", "decoder.7.")
        name = name.replace("head.first.", "decoder.").replace("head.second.0.", "decoder.3.")
        theirs[name.replace("head.second.1.", "decoder.4.")] = value
    path = tmp_path_factory.mktemp("published") / "fcn.pth"
    torch.save({"model": theirs}, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return learn(tmp_path_factory.mktemp("trained") / "run", tiny_recipe("mib", "training.epochs=1"))


@pytest.fixture
def folder(run, tmp_path):
    """The run's segmenter of step 1 as a folder."""
    return save_pretrained(tmp_path / "folder", *load_segmenter(run.segmenter_path(1)))


def refused(*arguments, telling: str) -> None:
    code, _, errors = command(*arguments)
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert telling in line


def write_image(path, width: int, height: int):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def test_from_a_published_file_to_masks(published, tmp_path):
    out = tmp_path / "folder"
    code, said, errors = command("convert", published, "--classes", "voc", "--out", out)
    assert (code, errors) == (0, "")
    for line in ("read as: ssseg", "network: resnet50, fcn, output stride 8", "outputs: 21", f"folder: {out}"):
        assert line in said
    assert "classes: background and 20 of voc, the last is tvmonitor" in said
    assert load_pretrained(out)[1].names[20] == "tvmonitor"
    source = json.loads((out / "segmenter.json").read_text())["source"]
    assert (source["code_base"], source["file"]) == ("ssseg", "fcn.pth")
    assert re.fullmatch(r"[0-9a-f]{64}", source["sha256"])
    image = write_image(tmp_path / "a.png", 40, 24)
    code, said, _ = command("predict", out, image, "--out", tmp_path / "masks")
    assert code == 0
    assert Image.open(tmp_path / "masks" / "ids" / "a.png").size == (40, 24)
    code, _, errors = command("convert", published, "--classes", "voc", "--out", out, "--from", "ssseg")
    assert (code, errors) == (0, ""), "a folder of a segmenter may be written again"


def test_what_a_file_does_not_tell_can_be_said(published, tmp_path):
    words = ["convert", published, "--classes", "voc", "--out", tmp_path / "folder"]
    code, said, errors = command(*words, "output_stride=16", "mean=[0, 0, 0]")
    assert (code, errors) == (0, "")
    assert "output stride 16" in said
    options = load_pretrained(tmp_path / "folder")[0].options
    assert (options.backbone.output_stride, options.mean) == (16, (0.0, 0.0, 0.0))
    other = ["convert", published, "--classes", "voc", "--out", tmp_path / "other"]
    refused(*other, "width=32", telling="weights: do not fit (")
    refused(*other, "output_strid=8", telling="did you mean 'backbone.output_stride'?")
    assert not (tmp_path / "other").exists()


def test_convert_with_wrong_words(published, tmp_path):
    out = ["--out", tmp_path / "new"]
    refused(
        "convert", published, "--classes", "lip", *out, telling="20 classes (19 without background), but the network has 21"
    )
    refused("convert", published, "--classes", "voc", "--split", "15-2", *out, telling="'15-2' does not fit 20 classes")
    refused("convert", published, "--classes", "voc", "--from", "sssseg", *out, telling="did you mean 'ssseg'?")
    refused(
        "convert", published, "--classes", "voc", "--from", "mib", *out, telling="no classifier with the tensor names of mib"
    )
    refused("convert", published, "--classes", "voc", "--order", "z", *out, telling="scenario.order: 'z' is neither natural")
    refused("convert", tmp_path / "no.pth", "--classes", "voc", *out, telling="no.pth: weights file not found")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(published.read_bytes()[:5000])
    refused("convert", cut, "--classes", "voc", *out, telling="cut.pth: cannot be read as plain weights")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    for taken in (tmp_path / "mine", cut):
        refused("convert", published, "--classes", "voc", "--out", taken, telling="is not empty and contains no segmenter")


def test_a_folder_predicts_as_the_run_it_came_from(run, folder, tmp_path):
    image = write_image(tmp_path / "a.png", 40, 56)
    for source, out in ((run.folder, "one"), (folder, "two"), (folder / "segmenter.safetensors", "three")):
        assert command("predict", source, image, "--out", tmp_path / out)[0] == 0
    masks = [(tmp_path / out / "ids" / "a.png").read_bytes() for out in ("one", "two", "three")]
    assert masks[0] == masks[1] == masks[2]


RECIPE = [
    "--recipe", "digits/mib_5-1", "data.options={train: 73, test: 12, size: 48}", "scenario.split=5-5", "training.batch=10",
]  # fmt: skip


def test_a_folder_is_measured_on_the_test_set_of_a_recipe(run, folder):
    code, said, errors = command("evaluate", folder, *RECIPE)
    assert (code, errors) == (0, "")
    line = lines(run, "step")[1]
    assert "step 1: 12 images" in said
    assert f"accuracy {100 * line['accuracy']:.1f}" in said
    assert f"all_with_background {100 * line['all_with_background']:.1f}" in said


def test_evaluate_with_wrong_words(run, folder):
    refused("evaluate", folder, telling="contains a segmenter, not a run; set labelled images with --data, or the recipe")
    refused("evaluate", run.folder, "--recipe", "digits/mib_5-1", telling="is a run with its own recipe; remove the option")
    refused("evaluate", folder, "--step", 1, *RECIPE, telling="--step: applies to runs")
    other = [word if "split" not in word else "scenario.order=seed:1" for word in RECIPE]
    refused(
        "evaluate", folder, *other, telling="no step of the recipe ends with these in this order; its steps end with 6, 7, 8"
    )


@pytest.mark.parametrize(
    ("spoil", "telling"),
    [
        (lambda f: (f / "segmenter.safetensors").write_bytes(b"short"), "SHA-256 is"),
        (lambda f: (f / "segmenter.json").write_text("{}"), "segmenter.json: lacks 'network'"),
        (lambda f: (f / "segmenter.safetensors").unlink(), "segmenter file not found"),
    ],
)
def test_a_spoiled_folder_is_told_by_every_command(folder, tmp_path, spoil, telling):
    spoil(folder)
    image = write_image(tmp_path / "a.png", 40, 40)
    refused("predict", folder, image, "--out", tmp_path / "masks", telling=telling)
    refused("evaluate", folder, *RECIPE, telling=telling)
    words = [*RECIPE[1:], f"start_from={folder}", "--out", tmp_path / "run"]
    refused("train", *words, telling=telling)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [(7, 40), (40, 7), (1, 1)])
def test_an_image_smaller_than_the_stride_is_told_with_both_sizes(folder, tmp_path, size):
    stride = load_pretrained(folder)[0].options.backbone.stride
    image = write_image(tmp_path / "a.png", *size)
    told = f"{image}: image of {size[0]} x {size[1]} pixels: smaller than the network's output stride of {stride}"
    refused("predict", folder, image, "--out", tmp_path / "masks", telling=told)
    write_image(image, stride, stride)
    assert command("predict", folder, image, "--out", tmp_path / "masks")[0] == 0


def test_a_folder_that_is_neither_run_nor_segmenter(tmp_path):
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    (tmp_path / "x").mkdir()
    refused("predict", tmp_path / "x", tmp_path, telling="contains no model; give")
