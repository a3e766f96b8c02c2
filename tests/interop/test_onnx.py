"""A model in ONNX, as a program of PyTorch and as a folder of transformers gives the scores that it gives here."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from contseg.cli.main import app
from contseg.data.classes import ClassTable
from contseg.errors import ContsegError
from contseg.evaluation.predict import predict_image
from contseg.interop.adopted import open_foreign
from contseg.interop.exported import TOLERANCE, FromRGB, largest_difference
from contseg.interop.hf_export import export_hf
from contseg.interop.onnx import export_onnx
from contseg.interop.pretrained import save_pretrained
from contseg.interop.torch_export import export_torch
from contseg.models.adopted.segmenter import adopt
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter
from tests.trees.foreign import HF, NAMES, foreign_module, save_foreign

RESNET = {"name": "resnet18", "width": 4, "output_stride": 16}
RESNET32 = RESNET | {"output_stride": 32}
SWIN = {"name": "swin_tiny", "embed_dim": 8, "depths": [2, 1, 1, 1], "heads": [1, 2, 2, 4], "window": 4}
CONVNEXT = {"name": "convnext_tiny", "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}}
VIT = {"options": {"embed_dim": 16, "depth": 1, "num_heads": 2}}
FCN = {"name": "fcn", "width": 8}
PATCHES = {"name": "vit_tiny", "embed_dim": 16, "depth": 4, "heads": 2, "grid": 4}
HEADS = {
    "fcn": FCN,
    "pspnet": {"name": "pspnet", "width": 8},
    "deeplabv3": {"name": "deeplabv3", "width": 8},
    "deeplabv3-mib": {"name": "deeplabv3-mib", "width": 8, "pooling_size": 8},
    "deeplabv3-ssul": {"name": "deeplabv3-ssul", "width": 8},
    "upernet": {"name": "upernet", "width": 8, "fpn_width": 8},
    "mask-transformer": {"name": "mask-transformer", "width": 8, "heads": 2},
}
NETWORKS = {
    **{name: {"backbone": RESNET32 if name == "upernet" else RESNET, "head": head} for name, head in HEADS.items()},
    "deeplabv3-ssul-unknown": {
        "backbone": RESNET, "head": HEADS["deeplabv3-ssul"], "unknown": True, "decision": "sigmoid",
    },
    "residual": {
        "backbone": RESNET, "head": {"name": "deeplabv3-barm", "width": 8}, "background": "residual", "decision": "sigmoid",
    },
    **{
        f"idrnet-{name}": {"backbone": RESNET, "head": HEADS[name] | {"idrnet": {"attention_width": 4}}}
        for name in ("fcn", "pspnet", "deeplabv3", "upernet")
    },
    "resnet50": {"backbone": RESNET | {"name": "resnet50", "stem": "deep"}, "head": FCN, "auxiliary": {"width": 4}},
    "swin": {"backbone": SWIN, "head": FCN},
    "convnext": {"backbone": CONVNEXT, "head": FCN},
    "mobilenetv3": {"backbone": "mobilenetv3_large", "head": FCN},
    "dinov2": {"backbone": VIT | {"name": "dinov2_small"}, "head": FCN},
    "dinov3": {"backbone": VIT | {"name": "dinov3_small"}, "head": FCN},
    "vit": {"backbone": PATCHES, "head": HEADS["mask-transformer"]},
    "vit-fcn": {"backbone": PATCHES, "head": FCN},
}  # fmt: skip
TABLE = ClassTable(("background", "cat", "dog", "cow"), (0, 7, 9, 20), ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)))


def grown(name: str) -> Segmenter:
    """A segmenter of two steps, with random statistics and tables."""
    torch.manual_seed(0)
    options = NetworkOptions.model_validate(NETWORKS[name])
    segmenter = Segmenter(options, first_widths(options, 3))
    segmenter.grow(1, "random")
    for buffer_name, buffer in segmenter.named_buffers():
        if buffer_name.endswith(("running_mean", "memory")):
            buffer.normal_(0, 0.1)
        elif buffer_name.endswith("seen"):
            buffer.fill_(True)
    return segmenter.eval()


class Small(nn.Module):
    """A network of two layers, which is exported in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.Conv2d(8, 3, 1)

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x)))


def small(kind: type[Small] = Small) -> Segmenter:
    torch.manual_seed(0)
    segmenter = adopt(kind(), TABLE.names[:3], "last", mean=(0.4, 0.5, 0.6))
    segmenter.grow(1, "random")
    return segmenter.eval()


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The small network in ONNX and as a program of PyTorch, with scores and as ids."""
    folder = tmp_path_factory.mktemp("exported")
    for argmax, name in ((False, "scores"), (True, "ids")):
        export_onnx(folder / f"{name}.onnx", small(), TABLE, argmax=argmax, resolution=30.0, source={"recipe": "mine"})
    export_torch(folder / "ids.pt2", small(), TABLE, argmax=True)
    return folder


def test_an_export_to_a_full_disk_is_one_line(tmp_path, largest_file):
    largest_file(3000)
    with pytest.raises(ContsegError, match=r"ids\.pt2: cannot be written \(File too large"):
        export_torch(tmp_path / "ids.pt2", small(), TABLE, argmax=True)
    assert not list(tmp_path.iterdir())


class TestContents:
    def test_number_and_size_of_images_are_free_and_named(self, exported):
        (taken,), (given,) = session(exported / "scores.onnx").get_inputs(), session(exported / "scores.onnx").get_outputs()
        assert (taken.name, taken.shape, taken.type) == ("images", ["batch", 3, "height", "width"], "tensor(float)")
        assert (given.name, given.shape) == ("scores", ["batch", 4, "height", "width"])

    @pytest.mark.parametrize("size", [(40, 64), (33, 50), (7, 9)])
    def test_ids_are_those_of_the_class_table_at_every_pixel_of_predict(self, exported, size):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
        expected = np.array(TABLE.ids, dtype=np.uint8)[predict_image(small(), image)]
        images = image.transpose(2, 0, 1)[None].astype(np.float32)
        (found,) = session(exported / "ids.onnx").run(None, {"images": images})
        assert found.dtype == np.uint8
        assert np.array_equal(found[0], expected)
        program = torch.export.load(exported / "ids.pt2").module()
        assert np.array_equal(program(torch.from_numpy(images))[0].numpy(), expected)

    def test_metadata_have_the_classes_and_what_qgis_reads(self, exported):
        entries = session(exported / "scores.onnx").get_modelmeta().custom_metadata_map
        about = {key: json.loads(value) for key, value in entries.items()}
        assert about["contseg"]["classes"]["names"] == list(TABLE.names)
        assert about["contseg"]["classes"]["colours"] == [list(colour) for colour in TABLE.colours]
        assert about["contseg"]["network"]["mean"] == [0.4, 0.5, 0.6]
        assert about["contseg"]["source"] == {"recipe": "mine"}
        assert about["model_type"] == "Segmentor"
        assert about["class_names"] == {str(place): name for place, name in enumerate(TABLE.names)}
        assert about["resolution"] == 30.0
        assert "tile_size" not in about

    def test_the_preprocessing_of_deepness_restores_values_from_0_to_255(self, exported):
        entries = session(exported / "scores.onnx").get_modelmeta().custom_metadata_map
        mean, std = (np.array(json.loads(entries[f"standardization_{what}"]), np.float32) for what in ("mean", "std"))
        pixels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
        assert np.allclose((np.float32(pixels * 1.0 / 255.0) - mean) / std, pixels, rtol=1e-6)

    def test_no_path_of_this_machine_is_in_the_file(self, exported):
        for path in exported.iterdir():
            assert str(Path(__file__).parents[2]).encode() not in path.read_bytes(), path.name

    def test_a_tile_fixes_the_size_for_qgis(self, tmp_path):
        export_onnx(tmp_path / "tile.onnx", small(), TABLE, tile=64)
        (taken,) = session(tmp_path / "tile.onnx").get_inputs()
        assert taken.shape == ["batch", 3, 64, 64]
        entries = session(tmp_path / "tile.onnx").get_modelmeta().custom_metadata_map
        assert (entries["tiles_size"], entries["tile_size"]) == ("64", "64")
        onnx.checker.check_model(tmp_path / "tile.onnx", full_check=True)

    @pytest.mark.slow
    def test_a_program_of_pytorch_runs_without_this_package(self, exported):
        code = (
            "import sys, torch; sys.modules['contseg'] = None; about = {'contseg.json': ''};"
            f"program = torch.export.load({str(exported / 'ids.pt2')!r}, extra_files=about).module();"
            "print(program(torch.zeros(2, 3, 50, 70)).shape, 'cow' in str(about))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "torch.Size([2, 50, 70]) True"


class Bessel(Small):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class Counting(Small):
    """Its result depends on what a trace cannot see."""

    calls = 0

    def between(self, x: torch.Tensor) -> torch.Tensor:
        Counting.calls += 1
        return x.relu() * Counting.calls


class Branching(Small):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (Bessel, "ONNX has no operator for prims.bessel_j0"),
            (Counting, r"differs from PyTorch by \d.* for 1 x 128 x 128 pixels"),
            (Branching, "PyTorch cannot trace this network"),
        ],
    )
    def test_what_cannot_be_exported_is_one_line_and_no_file(self, tmp_path, kind, message):
        with pytest.raises(ContsegError, match=message) as caught:
            export_onnx(tmp_path / "model.onnx", small(kind), TABLE)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("error", "accepted"), [(0.0, True), (0.01, False)])
    def test_only_rounding_that_large_weights_amplify_is_tolerated(self, error, accepted):
        segmenter = grown("fcn")
        for step in segmenter.classifier.steps:
            step.weight.data += 2e4  # cancels in the softmax
        network = FromRGB(segmenter).eval()
        exact = copy.deepcopy(network).double()

        def exported(images):
            return exact.scores(images.double()).float() + error

        if accepted:
            assert TOLERANCE < largest_difference(network, exported, 64) < 10 * TOLERANCE
        else:
            with pytest.raises(ContsegError, match="differs from PyTorch"):
                largest_difference(network, exported, 64)

    def test_an_id_that_does_not_fit_8_bits(self, tmp_path):
        table = ClassTable(("a", "b", "c", "d"), (1, 2, 3, 300), ((0, 0, 0),) * 4, "none")
        with pytest.raises(ContsegError, match="id 300 does not fit"):
            export_onnx(tmp_path / "model.onnx", small(), table, argmax=True)

    def test_a_network_of_ours_is_no_folder_of_transformers(self, tmp_path):
        with pytest.raises(ContsegError, match="resnet18 with fcn; use --to onnx or --to torch"):
            export_hf(tmp_path / "hf", grown("fcn"), TABLE)


@pytest.mark.slow
class TestEveryNetwork:
    """The functions compare their result with PyTorch on three sizes."""

    @pytest.mark.parametrize("name", NETWORKS)
    def test_onnx(self, tmp_path, name):
        assert export_onnx(tmp_path / "model.onnx", grown(name), TABLE) <= TOLERANCE

    @pytest.mark.parametrize("name", ["deeplabv3-mib", "idrnet-pspnet", "upernet", "swin", "dinov2", "mobilenetv3"])
    def test_torch(self, tmp_path, name):
        assert export_torch(tmp_path / "model.pt2", grown(name), TABLE) <= TOLERANCE

    @pytest.mark.parametrize(
        ("name", "tile"),
        [
            *((name, None) for name in ("segformer", "upernet-resnet", "beit", "dpt", "smp-unet", "smp-pspnet", "lraspp")),
            ("upernet-swin", 64),  # its code decides by the size of the image
        ],
    )
    def test_a_grown_network_of_another_library(self, tmp_path, name, tile):
        segmenter = adopt(foreign_module(name), NAMES)
        segmenter.grow(1, "random")
        table = ClassTable.of([*NAMES, "new"])
        assert export_onnx(tmp_path / "model.onnx", segmenter.eval(), table, tile=tile) <= TOLERANCE


@pytest.mark.parametrize("name", HF)
def test_a_grown_network_of_transformers_is_opened_by_transformers(tmp_path, name):
    segmenter, _, source = open_foreign(save_foreign(name, tmp_path / "before"))
    segmenter.grow(1, "random")
    table = ClassTable.of([*NAMES, "new"])
    assert export_hf(tmp_path / "after", segmenter.eval(), table, source=source) <= TOLERANCE
    again, classes, about = open_foreign(tmp_path / "after")
    assert classes.names == table.names
    assert (again.options.mean, again.options.std) == (segmenter.options.mean, segmenter.options.std)
    assert about.get("inference") == source.get("inference")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(again(images).logits, segmenter(images).logits, atol=1e-5)


def test_scores_are_compared_with_transformers_not_logits_which_may_be_large(tmp_path):
    segmenter, _, source = open_foreign(save_foreign("segformer", tmp_path / "before"))
    for _ in range(2):
        segmenter.grow(1, "random")
    for step in segmenter.classifier.steps:
        step.weight.data += 2e3  # cancels in the softmax
    table = ClassTable.of([*NAMES, "new", "newer"])
    assert export_hf(tmp_path / "after", segmenter.eval(), table, source=source) <= TOLERANCE


class TestCommand:
    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory) -> Path:
        return save_pretrained(tmp_path_factory.mktemp("model"), grown("fcn"), TABLE)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--to", "hf"], "resnet18 with fcn"),
            (["--to", "hf", "--argmax"], "--argmax: is not an option of --to hf"),
            (["--out", "."], "exists; choose another path"),
            (["--tile", "64", "--resolution", "-1"], "resolution: must be above 0"),
        ],
    )
    def test_bad_input_is_one_line(self, tmp_path, model, words, message):
        result = CliRunner().invoke(app, ["export", str(model), "--out", str(tmp_path / "new"), *words])
        assert isinstance(result.exception, ContsegError)
        assert message in str(result.exception)
        assert "\n" not in str(result.exception)
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    @pytest.mark.parametrize(("to", "out"), [("onnx", "new/model.onnx"), ("torch", "new/model.pt2")])
    def test_writes_a_checked_file_and_its_input_and_output(self, tmp_path, model, to, out):
        words = ["export", str(model), "--to", to, "--out", str(tmp_path / out), "--argmax", "--tile", "64"]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert "input: RGB from 0 to 255, float32 (B, 3, H, W), 64 x 64 pixels" in result.output
        assert "checked: differs from PyTorch by at most 0e+00" in result.output
        assert (tmp_path / out).is_file()
