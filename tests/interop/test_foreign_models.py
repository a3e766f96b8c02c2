"""Files of transformers, smp and torchvision open as segmenters; there is no network access, and no code in them runs."""

import json
import pickle
import shutil
import socket

import numpy as np
import pytest
import torch
from PIL import Image

import contseg
from contseg.data.datasets.voc import VOC
from contseg.errors import ContsegError
from contseg.evaluation.inference import infer
from contseg.interop.adopted import open_foreign
from contseg.models.adopted.libraries import import_transformers
from contseg.recipes.models import open_model
from tests.engine.runs import command
from tests.trees.foreign import HF, LIBRARIES, NAMES, SIZE, foreign_module, logits_of, save_foreign

FIXED = ("beit", "dpt")
HEAVY = ("fcn",)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every attempt to open a socket fails."""

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves a model of `LIBRARIES` once; returns what is opened."""
    paths = {}

    def save(name):
        if name not in paths:
            paths[name] = save_foreign(name, tmp_path_factory.mktemp(name))
        return paths[name]

    return save


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the folder of a model, to change."""
    return lambda name: shutil.copytree(saved(name), tmp_path / "changed")


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def logits(segmenter, images):
    with torch.no_grad():
        return segmenter(images).logits


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in LIBRARIES])
def test_old_logits_keep_their_bits_after_opening_growing_and_saving(name, saved, images, tmp_path):
    before = logits_of(foreign_module(name), images)
    segmenter, classes, source = open_foreign(saved(name))
    assert classes.names == NAMES
    assert classes.background == "annotated"
    assert source["library"] in ("transformers", "smp", "torchvision")
    assert torch.equal(logits(segmenter, images), before)
    for count in (1, 2):
        segmenter.grow(count, "random")
    grown = logits(segmenter, images)
    assert torch.equal(grown[:, :4], before)
    more = contseg.ClassTable.of([*NAMES, "pig", "hen", "ox"])
    loaded, table = contseg.load_pretrained(contseg.save_pretrained(tmp_path, segmenter, more, source))
    assert torch.equal(logits(loaded, images), grown)
    assert (table, loaded.widths, loaded.options) == (more, [4, 1, 2], segmenter.options)


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name not in HEAVY])
def test_images_of_any_size_are_predicted(name, saved):
    segmenter = open_foreign(saved(name))[0]
    image = np.random.default_rng(0).integers(0, 255, (70, 93, 3), dtype=np.uint8)
    assert contseg.predict_image(segmenter, image).shape == (70, 93)
    assert (segmenter.options.backbone.size is not None) == (name in FIXED)


def test_weights_may_be_in_several_files(images, tmp_path):
    module = foreign_module("segformer")
    module.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert torch.equal(logits(open_foreign(tmp_path)[0], images), logits_of(module, images))


@pytest.mark.parametrize("name", ["segformer", "upernet-swin", "beit", "smp-unet", "lraspp"])
def test_a_module_in_memory_is_recognised_and_can_be_saved(name, images, tmp_path):
    module = foreign_module(name)
    segmenter = contseg.adopt(module, NAMES).eval()
    contseg.save_pretrained(tmp_path, segmenter, contseg.ClassTable.of(NAMES))
    assert torch.equal(logits(contseg.load_pretrained(tmp_path)[0], images), logits_of(module, images))


class TestPreprocessing:
    @pytest.mark.parametrize("name", [*HF])
    def test_of_transformers_comes_along(self, name, saved):
        model = open_model(saved(name))
        assert model.kind == "foreign"
        assert model.segmenter.options.mean == (0.5, 0.5, 0.5)
        assert model.segmenter.options.std == (0.5, 0.25, 0.5)
        fixed = name in FIXED
        assert model.segmenter.options.backbone.size == ((SIZE, SIZE) if fixed else None)
        assert model.inference.options.resize == (None if fixed else [SIZE, SIZE])
        assert model.inferring({"mode": "slide"}).options.resize is None

    def test_the_network_sees_the_images_of_the_processor_of_transformers(self, saved):
        rng = np.random.default_rng(0)
        image = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((200, 150), Image.BILINEAR)
        processor = import_transformers().SegformerImageProcessor.from_pretrained(saved("segformer"), local_files_only=True)
        theirs = processor(image, return_tensors="pt")["pixel_values"]
        model, seen = open_model(saved("segformer")), []
        batch = model.segmenter.normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
        infer(lambda images: seen.append(images) or images, batch, model.inference.options)
        assert (seen[0] - theirs).abs().max() < 1.01 / 255 / 0.25  # they round the resized image to 8 bits

    @pytest.mark.parametrize(
        ("content", "mean", "std"),
        [
            ({"do_normalize": False}, 0.0, 1.0),
            ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, 0.5, 0.2),
            ({"rescale_factor": 2 / 255, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 0.5, 0.5),
        ],
    )
    def test_any_scale_becomes_that_of_images_from_0_to_1(self, copied, content, mean, std):
        folder = copied("segformer")
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
        options = open_foreign(folder)[0].options
        assert options.mean == pytest.approx([mean] * 3)
        assert options.std == pytest.approx([std] * 3)

    def test_the_shorter_side_alone_may_be_fixed(self, copied):
        folder = copied("segformer")
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 32}}))
        model = open_model(folder)
        assert contseg.predict_image(model.segmenter, np.zeros((60, 90, 3), np.uint8), model.inference).shape == (60, 90)
        assert model.inference.options.fit[1] == 32

    def test_a_missing_file_is_noted(self, copied):
        folder = copied("segformer")
        (folder / "preprocessor_config.json").unlink()
        assert "no preprocessor_config.json: ImageNet's mean" in open_model(folder).notes[0]


class TestClassNames:
    def test_of_21_outputs_of_torchvision_are_those_of_voc(self, monkeypatch, tmp_path):
        monkeypatch.setattr("tests.trees.foreign.NAMES", VOC.classes.names)
        path = save_foreign("lraspp", tmp_path)
        path.with_name("classes.txt").unlink()
        model = open_model(path)
        assert model.classes == VOC.classes
        assert "the classes of VOC are assumed" in model.notes[0]

    @pytest.mark.parametrize("name", ["lraspp", "smp-unet"])
    def test_are_necessary(self, name, saved, tmp_path):
        path = saved(name)
        moved = shutil.copytree(path, tmp_path / "x") if path.is_dir() else shutil.copy(path, tmp_path)
        for file in ("classes.txt", "classes.json"):
            (tmp_path / "x" / file).unlink(missing_ok=True)
        with pytest.raises(ContsegError, match=r"has no class names; write the name of each output to .*classes.txt"):
            open_foreign(moved)
        assert open_foreign(moved, NAMES)[1].names == NAMES

    def test_of_a_table_without_background(self, saved):
        classes = open_foreign(saved("smp-unet"), ["wall", "sky", "tree", "road"])[1]
        assert classes.background == "none"

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["a", "b"], r"has 4 outputs, for 2 class names"),
            (["background", "cat", "cat", "dog"], r"the name 'cat' occurs more than once"),
        ],
    )
    def test_must_fit(self, saved, names, expected):
        with pytest.raises(ContsegError, match=expected):
            open_foreign(saved("smp-unet"), names)


class TestErrors:
    def change(self, folder, file, **keys):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | keys))

    @pytest.mark.parametrize("content", [None, "notes"])
    def test_a_folder_of_an_unknown_kind_says_what_was_looked_for(self, tmp_path, content):
        if content:
            (tmp_path / "notes.txt").write_text(content)
        with pytest.raises(
            ContsegError, match=r"no model; give a run \(recipe.yaml\), a segmenter .* state dict of torchvision"
        ):
            open_model(tmp_path)

    def test_a_path_that_does_not_exist(self, tmp_path):
        with pytest.raises(ContsegError, match=r"model: not found; give a run \(recipe.yaml\), a segmenter"):
            open_model(tmp_path / "model")

    def test_an_architecture_without_a_last_convolution(self, copied):
        folder = copied("segformer")
        self.change(folder, "config.json", architectures=["Mask2FormerForUniversalSegmentation"])
        with pytest.raises(ContsegError, match=r"Mask2Former\w+ is not supported; known are Segformer, .*contseg.adopt"):
            open_model(folder)

    def test_another_number_of_channels(self, tmp_path):
        module = import_transformers().SegformerForSemanticSegmentation
        config = module.config_class(**HF["segformer"][1], num_channels=4)
        module(config).save_pretrained(tmp_path)
        with pytest.raises(ContsegError, match=r"reads 4 channels; only RGB images are supported"):
            open_model(tmp_path)

    def test_weights_of_another_configuration(self, copied):
        folder = copied("segformer")
        self.change(folder, "config.json", depths=[2, 1, 1, 1])
        with pytest.raises(ContsegError, match=r"config.json and weights are not of the same model"):
            open_model(folder)

    def test_a_file_that_is_no_model(self, tmp_path):
        torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
        with pytest.raises(ContsegError, match=r"1 tensors such as weight, of no supported code base; give a run"):
            open_model(tmp_path / "weights.pth")

    @pytest.mark.parametrize("name", ["segformer", "smp-unet"])
    def test_a_file_that_is_cut_short(self, copied, name):
        folder = copied(name)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(ContsegError, match=r"changed: transformers cannot read|cannot be read as safetensors"):
            open_model(folder)

    def test_a_config_that_is_not_json(self, copied):
        folder = copied("segformer")
        (folder / "config.json").write_text("{")
        with pytest.raises(ContsegError, match=r"config.json: not JSON"):
            open_model(folder)

    def test_a_backbone_that_would_be_downloaded(self, copied):
        folder = copied("upernet-swin")
        self.change(folder, "config.json", backbone="microsoft/swin-tiny", backbone_config=None)
        with pytest.raises(ContsegError, match=r"is a name on the hub, and nothing is downloaded"):
            open_model(folder)

    def test_a_segmenter_that_was_edited_by_hand(self, saved, tmp_path):
        segmenter, classes, source = open_foreign(saved("segformer"))
        folder = contseg.save_pretrained(tmp_path, segmenter, classes, source)
        weights = folder / "segmenter.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(ContsegError, match=r"SHA-256 is .*the file was changed"):
            open_model(folder)

    def test_are_one_line_on_the_command_line(self, tmp_path):
        code, _, text = command("predict", tmp_path, tmp_path, "--out", tmp_path / "out")
        assert code == 2
        assert len(text.strip().splitlines()) == 1


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class TestNothingIsExecuted:
    def test_of_a_pickle_in_a_folder(self, copied, tmp_path):
        folder = copied("segformer")
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        open_model(folder)
        (folder / "model.safetensors").unlink()
        with pytest.raises(ContsegError, match=r"pickled weights are not read, as they could run code"):
            open_model(folder)
        assert not (tmp_path / "exploded").exists()

    def test_of_a_pickle_that_is_given(self, tmp_path):
        path = tmp_path / "model.pth"
        torch.save({"classifier.low_classifier.weight": Bomb(tmp_path / "exploded")}, path)
        with pytest.raises(ContsegError, match=r"it would run .*open, and nothing was executed"):
            open_model(path)
        assert not (tmp_path / "exploded").exists()

    def test_of_code_next_to_a_configuration(self, copied, tmp_path):
        folder = copied("segformer")
        content = json.loads((folder / "config.json").read_text())
        content |= {"auto_map": {"AutoModel": "code.Model"}, "attn_implementation": "kernels-community/flash"}
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "code.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
        open_model(folder)
        assert not (tmp_path / "exploded").exists()
