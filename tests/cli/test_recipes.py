"""`contseg recipes` and what `contseg train` does with a name."""

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from contseg.cli.main import app
from contseg.data.fake import write_fake
from contseg.errors import ContsegError


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_list_shows_names_beside_published_numbers():
    output = told("recipes", "--system", "plop", "--dataset", "voc", "--split", "15-1")
    assert "voc/plop_15-1_overlapped" in output
    assert "65.12 / 21.11 / 54.64 bg" in output
    assert "voc/mib" not in output
    assert "6 recipes" in output


def test_a_narrow_terminal_cuts_nothing_off():
    narrow = (
        CliRunner().invoke(app, ["recipes", "--dataset", "ade20k"], env={"COLUMNS": "80"}, catch_exceptions=False).output
    )
    assert "…" not in narrow
    assert "Show one with its sources: contseg recipes show NAME" in narrow


def test_one_is_shown_in_full():
    output = told("recipes", "show", "voc/plop_15-1_overlapped", "training.epochs=3")
    assert "epochs: 3" in output
    assert "command line" in output


@pytest.mark.parametrize("command", [("recipes", "show"), ("train",), ("plan",), ("dry-run",)])
def test_an_unknown_name_is_answered_with_the_nearest(command):
    with pytest.raises(ContsegError, match=r"'voc/plop_15-1_overlaped': not found; did you mean 'voc/plop_15-1_overlapped'"):
        CliRunner().invoke(app, [*command, "voc/plop_15-1_overlaped"], catch_exceptions=False)


def test_a_path_that_lacks_the_data_is_told_with_what_was_expected_and_found(tmp_path):
    (tmp_path / "photos").mkdir()
    expected = (
        r"JPEGImages: folder not found; expected the VOC2012 folder \(JPEGImages, ImageSets/Segmentation\), found photos/"
    )
    with pytest.raises(ContsegError, match=expected):
        CliRunner().invoke(app, ["train", "voc/plop_15-1_overlapped", "--data", str(tmp_path)], catch_exceptions=False)


@pytest.fixture(scope="module")
def small_voc(tmp_path_factory):
    """Few synthetic images in VOC's layout."""
    return write_fake("voc", tmp_path_factory.mktemp("voc"), train=40, test=8, size=(40, 40))


SIZES = ("network.backbone=resnet18", "network.width=8", "data.crop=32", "training.epochs=1", "training.workers=0")


def test_a_change_of_the_protocol_is_accepted_and_the_run_is_marked(small_voc, tmp_path):
    run = tmp_path / "run"
    command = ("train", "voc/plop_15-5_overlapped", "--data", str(small_voc), "--out", str(run), "--no-cache", *SIZES)
    mark = "not comparable with published numbers: scenario.setting was overlapped, is disjoint"
    assert mark in told(*command, "scenario.setting=disjoint")
    assert "scenario.setting was overlapped, is disjoint" in told("table", str(run))
    assert "scenario.setting was overlapped, is disjoint" in (run / "report.html").read_text(encoding="utf-8")


def test_weights_that_do_not_fit_are_refused_with_the_tensors(small_voc, tmp_path):
    weights = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(8, 3, 7, 7), "colour.weight": torch.zeros(3)}, weights)
    command = ("train", "voc/plop_15-5_overlapped", "--data", str(small_voc), "--backbone-weights", str(weights), *SIZES)
    with pytest.raises(ContsegError, match=r"other\.safetensors: misses bn1\.bias, bn1\.running_mean, .* and \d+ more"):
        CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run")], catch_exceptions=False)
    assert not (tmp_path / "run").exists()  # so that the command can be repeated with the right ones
