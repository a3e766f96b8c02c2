"""What should be known of the data is printed where figures are made, not only by `plan`; a real class 0 is scored."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.engine.runs import command

TINY = [
    "scenario.split=offline", "network.width=8", "network.head_width=16", "network.output_stride=8",
    "network.pooling_size=4",
    "data.crop=32", "training.batch=4", "training.epochs=1", "training.threads=1", "training.accelerator=cpu",
    "training.workers=0",
]  # fmt: skip


@pytest.fixture
def folder(make_folder):
    return make_folder(12)


def test_training_images_in_the_test_list_are_told_by_training_and_evaluation(folder, tmp_path):
    (folder / "test.txt").write_text("009\n010\n011\n000\n011\n")
    image = np.asarray(Image.open(folder / "images" / "000.png"))[..., 0]
    Image.fromarray(image.astype(np.uint16) * 257).save(folder / "images" / "000.png")
    run = tmp_path / "run"
    code, said, errors = command("train", "folder/finetune", "--data", folder, "--out", run, "--no-cache", *TINY)
    assert code == 0, errors
    assert "000.png: 16 bits, of which 0 to 65535 become 0 to 255" in " ".join(said.split())
    leaked = "note: step 0 is tested on 1 of its 4 images that it or an earlier step is trained on, such as '000'"
    repeated = "note: the test list names 1 image more than once, such as '011': each counts once"
    for text in (said, command("evaluate", run)[1]):
        plain = " ".join(text.split())
        assert leaked in plain
        assert repeated in plain


def test_without_a_background_the_first_class_is_scored(folder, tmp_path):
    (folder / "classes.txt").write_text("road\nred\ngreen\nblue\n")
    run = tmp_path / "run"
    arguments = ["train", "folder/finetune", "--data", folder, "--out", run, "--no-cache", *TINY]
    code, _, errors = command(*arguments)
    assert code == 2
    assert "id 0 is 'road'" in errors
    assert not run.exists()
    code, _, errors = command(*arguments, "data.options.background=none")
    assert code == 0, errors
    summary = json.loads((run / "summary.json").read_text())
    assert summary["all"] == summary["all_with_background"] is not None
