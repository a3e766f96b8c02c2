"""A segmenter that learns one more class from images in which only that class is marked: what was not measured is no figure.

Masks hold background (0) and the new class (3). The given segmenter knows background and two old classes, and no mask shows
one of these, so that a 0 may hide them.
"""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.data.files import read_image
from contseg.engine.run import Run
from contseg.evaluation.predict import predict_image
from contseg.interop.pretrained import save_pretrained
from contseg.interop.segmenter_file import load_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from tests.conftest import TINY
from tests.engine.runs import COLOURS, command, folder_of_a_new_class

WHY = "not measured, no class of step 0 is labelled in the test set"
FORGETTING = "not measured, no old class is labelled in the test set"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The run, the folder of its data, and what the command said."""
    folder = tmp_path_factory.mktemp("unlabelled")
    root = folder / "data"
    data = folder_of_a_new_class(root)
    torch.manual_seed(3)
    segmenter = Segmenter(
        NetworkOptions(backbone="resnet18", width=8, head_width=16, initialisation="he", output_stride=8, pooling_size=12),
        [3],
    )
    images = np.stack([read_image(path) for path in sorted(root.glob("images/*.png"))])
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():  # one half of the pixels is red, the other background
        for _ in range(30):
            segmenter(segmenter.normalise(pictures))  # so that the norms know these images
        logits = segmenter.eval()(segmenter.normalise(pictures)).logits
        segmenter.classifier.steps[0].bias[1] += (logits[:, 0] - logits[:, 1]).median() - math.log(
            2
        )  # as growing costs background
        segmenter.classifier.steps[0].bias[2] -= 100
    given = save_pretrained(folder / "given", segmenter, ClassTable.of(COLOURS[:3]))
    options = [*TINY, *data, f"start_from={given}", "training.epochs=1", "training.lr_later=1.0e-4"]
    code, said, errors = command("train", "digits/plop_5-1", *options, "--out", folder / "run")
    assert (code, errors) == (0, "")
    return Run(folder / "run"), root, said


def test_the_summary_has_no_figure_of_what_no_mask_shows(extended):
    summary = json.loads((extended[0].folder / "summary.json").read_text())
    assert summary["old"] is None
    assert summary["forgetting"] is None
    assert summary["harmonic"] is None
    assert summary["new"] == summary["all"] is not None
    assert summary["notes"]["old"] == WHY
    assert summary["notes"]["forgetting"] == FORGETTING
    assert summary["notes"]["all"] == "over 1 of 3 classes; without a labelled pixel in the test set: red, green"
    assert summary["measured"]["all"] == [1, 3]
    assert summary["measured"]["forgetting"] == [0, 2]
    assert summary["measured"]["average"] == [1, 2]
    assert "over 1 of 2 steps" in summary["notes"]["average"]


def test_an_old_class_on_a_pixel_that_nobody_labelled_is_neither_right_nor_wrong(extended):
    """By hand, from the predictions."""
    run, root, _ = extended
    segmenter, _ = load_segmenter(run.segmenter_path(1))
    segmenter.eval()
    counted = np.zeros((4, 4), dtype=int)
    hidden = 0
    for number in (4, 5):
        said = predict_image(segmenter, np.array(Image.open(root / "images" / f"{number}.png")))
        truth = np.array(Image.open(root / "masks" / f"{number}.png"))
        left_out = (truth == 0) & np.isin(said, (1, 2))
        hidden += int(left_out.sum())
        np.add.at(counted, (truth[~left_out], said[~left_out]), 1)
    assert hidden > 0
    assert counted[0, 0] > 0
    assert np.array_equal(run.confusions()[1], counted)
    summary = run.summary()
    assert summary["pixels"] == 2 * 32 * 32 - hidden == counted.sum()
    assert summary["accuracy"] == pytest.approx(100 * np.trace(counted) / counted.sum(), abs=1e-4)
    left_out = "pixels labelled background and predicted as red, green are not scored: no mask labels these classes"
    assert summary["notes"]["accuracy"] == f"over {counted.sum()} pixels; {left_out}"


def test_the_terminal_has_dashes_and_says_why(extended):
    text = " ".join(extended[2].split())
    assert f"old: {WHY}" in text
    assert f"forgetting: {FORGETTING}" in text
    row = next(line for line in extended[2].splitlines() if line.startswith("│ plop "))
    assert [cell.strip() for cell in row.strip("│").split("│")][5] == "-"


def test_the_line_of_the_step_says_it_too(extended):
    line = [line for line in extended[0].metrics() if line["kind"] == "step"][-1]
    assert line["old"] is None
    assert line["notes"]["old"] == WHY
    assert line["measured"]["old"] == [0, 2]


@pytest.mark.parametrize(
    ("words", "key"), [(["report"], "forgetting"), (["table"], "old"), (["evaluate"], "old"), (["evaluate"], "background")]
)
def test_page_table_and_evaluation_say_it(extended, words, key):
    run = extended[0]
    code, said, errors = command(*words, run.folder)
    assert (code, errors) == (0, "")
    text = (run.folder / "report.html").read_text() if words == ["report"] else said
    why = {"forgetting": FORGETTING, "old": WHY, "background": "pixels labelled background and predicted as red, green"}
    assert why[key] in " ".join(text.split())
    assert key in text
