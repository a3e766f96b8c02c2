"""What the package exports takes paths as text or as `Path`, and images as arrays, PIL images or files."""

import ast
import inspect
import os
import stat
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import contseg
from contseg.errors import ContsegError
from contseg.evaluation.predict import predict_image
from tests.conftest import TINY

PATHS = {"folder", "folders", "path", "out", "cache", "source"}
"""What arguments that are paths are called in the public interface."""
OVERRIDES = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1", "network.width=4", "network.head=fcn"]


def test_type_checkers_and_editors_see_the_names_that_are_exported():
    source = ast.parse(Path(contseg.__file__).read_text(encoding="utf-8"))
    block = next(node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {name: (contseg._WHERE[name], name) for name in contseg.__all__}
    assert files("contseg").joinpath("py.typed").is_file()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_from_its_recipe_to_its_page_with_paths_of_either_kind(tmp_path, kind):
    before = os.umask(0o027)
    try:
        recipe = contseg.read_recipe("digits/finetune_5-1", OVERRIDES)
        folder = kind(tmp_path / "run")
        run = contseg.start_run(recipe, folder)
        assert contseg.read_recipe(kind(tmp_path / "run" / "recipe.yaml")) == recipe
        job = contseg.make_job(recipe, folder, cache=kind(tmp_path / "cache"))
        assert repr(run) == f"Run('{folder}', recipe='digits/finetune_5-1', steps=0, finished=False)"
        contseg.train(job)
        assert repr(contseg.Run(folder)) == f"Run('{folder}', recipe='digits/finetune_5-1', steps=2, finished=True)"
        for runs in ([folder], folder):
            page = contseg.write_report(runs, kind(tmp_path / "run" / "page.html"))
            assert page.is_file()
        segmenter, classes = contseg.load_segmenter(kind(run.segmenter_path(1)))
        contseg.save_segmenter(kind(tmp_path / "run" / "s.safetensors"), segmenter, classes)
        contseg.save_pretrained(kind(tmp_path / "run" / "given"), segmenter, classes)
        assert contseg.load_pretrained(kind(tmp_path / "run" / "given"))[1] == classes
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert len(modes) > 10
    assert set(modes.values()) == {0o640}, "everything that is written follows the umask"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_dataset_is_opened_by_a_path_of_either_kind(make_folder, kind):
    root = make_folder(8)
    scenario = contseg.Scenario(contseg.open_dataset("folder", kind(root)), contseg.ScenarioOptions(split="2-1"))
    assert len(contseg.make_plan(scenario).steps) == 2


def test_every_exported_argument_that_is_a_path_may_be_text():
    checked = []
    for name in contseg.__all__:
        exported = getattr(contseg, name)
        if not callable(exported) or (isinstance(exported, type) and issubclass(exported, Exception)):
            continue
        for argument in inspect.signature(exported).parameters.values():
            if argument.name in PATHS or "Path" in str(argument.annotation):
                checked.append(f"{name}({argument.name})")
                kinds = str(argument.annotation)
                assert "str" in kinds or "dict" in kinds, checked[-1]
    assert len(checked) >= 9


class TestImages:
    @pytest.fixture(scope="class")
    def segmenter(self):
        torch.manual_seed(0)
        options = contseg.NetworkOptions(backbone="resnet18", width=4, head="fcn", head_width=8)
        made = contseg.Segmenter(options, [3]).eval()
        for parameter in made.classifier.parameters():
            torch.nn.init.normal_(parameter)
        noise = torch.randint(255, (1, 3, 48, 48), dtype=torch.uint8)
        with torch.no_grad():  # so that every class is somewhere the highest
            made.classifier.steps[0].bias -= made(made.normalise(noise)).logits.mean(dim=(0, 2, 3))
        return made

    def test_an_array_a_pil_image_and_a_file_are_seen_alike(self, segmenter, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (48, 33, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        image.save(tmp_path / "a.png")
        expected = predict_image(segmenter, pixels)
        assert len(np.unique(expected)) > 1
        for given in (image, tmp_path / "a.png", str(tmp_path / "a.png"), image.convert("RGBA")):
            assert np.array_equal(contseg.predict_image(segmenter, given), expected)

    def test_a_pil_image_is_turned_upright(self, segmenter):
        image = Image.new("RGB", (40, 64))
        image.getexif()[0x0112] = 6
        assert contseg.predict_image(segmenter, image).shape == (40, 64)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (np.zeros((32, 32), np.uint8), r"image: an array \(32, 32\) of uint8; give \(H, W, 3\) uint8 RGB"),
            (np.zeros((32, 32, 4), np.uint8), r"an array \(32, 32, 4\)"),
            (np.zeros((32, 32, 3), np.float32), "of float32"),
            (Image.new("I", (32, 32)), "mode I has more than 8 bits"),
        ],
        ids=["grey", "four bands", "floats", "deep"],
    )
    def test_others_are_refused_in_one_line(self, segmenter, given, told):
        with pytest.raises(ContsegError, match=told):
            contseg.predict_image(segmenter, given)
