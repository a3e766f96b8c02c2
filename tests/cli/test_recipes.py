"""`contseg recipes` and what `contseg train` does with a name."""

import pytest
from typer.testing import CliRunner

from contseg.cli.main import app
from contseg.errors import ContsegError


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_list_shows_names_beside_published_numbers():
    output = told("recipes", "--system", "plop", "--dataset", "voc", "--split", "15-1")
    assert "voc/plop_15-1_overlapped" in output
    assert "65.1 / 21.1 / 54.6 bg" in output
    assert "voc/mib" not in output
    assert "4 recipes" in output


def test_one_is_shown_in_full():
    output = told("recipes", "show", "voc/plop_15-1_overlapped", "training.epochs=3")
    assert "epochs: 3" in output
    assert "command line" in output


@pytest.mark.parametrize("command", [("recipes", "show"), ("train",), ("plan",), ("dry-run",)])
def test_an_unknown_name_is_answered_with_the_nearest(command):
    with pytest.raises(ContsegError, match=r"'voc/plop_15-1_overlaped': not found; did you mean voc/plop_15-1_overlapped"):
        CliRunner().invoke(app, [*command, "voc/plop_15-1_overlaped"], catch_exceptions=False)


def test_a_path_that_lacks_the_data_is_told_with_what_was_expected_and_found(tmp_path):
    (tmp_path / "photos").mkdir()
    expected = (
        r"JPEGImages: folder not found; expected the VOC2012 folder \(JPEGImages, ImageSets/Segmentation\), found photos/"
    )
    with pytest.raises(ContsegError, match=expected):
        CliRunner().invoke(app, ["train", "voc/plop_15-1_overlapped", "--data", str(tmp_path)], catch_exceptions=False)
