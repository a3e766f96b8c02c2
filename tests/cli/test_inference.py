"""How images are seen reaches training, `contseg evaluate` and `contseg predict`, and can be changed afterwards."""

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data.dataset import SegmentationDataset
from contseg.engine.run import Run
from contseg.evaluation.inference import Inference, InferenceOptions
from contseg.evaluation.metrics import step_figures
from contseg.evaluation.predict import predict_image
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.read import read_recipe
from tests.engine.runs import Guessing, command, job_in, learn, lines, tiny_recipe

SLIDING = {"mode": "slide", "crop": 24, "stride": 16, "flip": True, "scales": [1.0, 1.5]}


def overrides(options: dict) -> list[str]:
    return [f"evaluation.{key}={value}" for key, value in options.items()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Trained plainly."""
    return learn(tmp_path_factory.mktemp("plain") / "run", tiny_recipe("mib", "training.epochs=1"), method=Guessing())


@pytest.fixture(scope="module")
def sliding(tmp_path_factory) -> Run:
    """The same, measured through windows."""
    recipe = tiny_recipe("mib", "training.epochs=1", *overrides(SLIDING))
    return learn(tmp_path_factory.mktemp("sliding") / "run", recipe, method=Guessing())


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return pixels


def predicted(segmenter, options: dict, pixels: np.ndarray) -> np.ndarray:
    network, classes = load_segmenter(segmenter)
    return np.array(classes.ids)[predict_image(network, pixels, Inference(InferenceOptions(**options)))]


def test_a_run_is_trained_the_same_and_measured_as_its_recipe_says(run, sliding):
    for step in (0, 1):
        one, other = (load_segmenter(one.segmenter_path(step))[0].state_dict() for one in (run, sliding))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert lines(run, "step") != lines(sliding, "step")


def test_evaluate_finds_what_training_measured_and_can_measure_otherwise(run, sliding, monkeypatch):
    counted = []

    def keep(confusion, *others):
        counted.append(confusion)
        return step_figures(confusion, *others)

    monkeypatch.setattr("contseg.engine.measure.step_figures", keep)
    for words in ([run.folder], [sliding.folder], [run.folder, *overrides(SLIDING)]):
        code, _, errors = command("evaluate", *words)
        assert (code, errors) == (0, "")
    plain, windows = run.confusions()[-1], sliding.confusions()[-1]
    assert not np.array_equal(plain, windows)
    for found, expected in zip(counted, (plain, windows, windows), strict=True):
        assert np.array_equal(found, expected)


def test_samples_of_the_report_are_predicted_as_the_run_is_measured(sliding):
    saved = np.load(sliding.folder / "samples.npz")
    said = np.load(sliding.folder / "steps" / "01" / "predictions.npz")
    network, _ = load_segmenter(sliding.segmenter_path(1))
    inference = Inference(InferenceOptions(**SLIDING))
    for number in range(len(saved["names"])):
        assert np.array_equal(said[f"prediction{number}"], predict_image(network, saved[f"image{number}"], inference))


def test_predict_sees_images_as_the_run_does(sliding, picture, tmp_path):
    for place in (sliding.folder, sliding.segmenter_path(1)):
        code, _, errors = command("predict", place, tmp_path / "a.png", "--out", tmp_path / "out")
        assert (code, errors) == (0, "")
        ids = np.array(Image.open(tmp_path / "out" / "ids" / "a.png"))
        assert np.array_equal(ids, predicted(sliding.segmenter_path(1), SLIDING, picture))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--slide", "20"], {"mode": "slide", "crop": 20}),
        (["--scales", "0.5,2", "--flip"], {"scales": [0.5, 2.0], "flip": True}),
        (["--slide", "20", "--flip", "--scales", "2"], {"mode": "slide", "crop": 20, "scales": [2.0], "flip": True}),
    ],
)
def test_predict_can_be_told_how_to_see_images(run, picture, tmp_path, words, options):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(run.segmenter_path(1).read_bytes())
    for place in (run.folder, alone):
        code, _, errors = command("predict", place, tmp_path / "a.png", "--out", tmp_path / "out", *words)
        assert (code, errors) == (0, "")
        ids = np.array(Image.open(tmp_path / "out" / "ids" / "a.png"))
        assert np.array_equal(ids, predicted(alone, options, picture))


def test_predict_can_leave_out_what_the_run_does(sliding, picture, tmp_path):
    words = ["--no-flip", "--scales", "1", "--slide", "24"]
    assert command("predict", sliding.folder, tmp_path / "a.png", "--out", tmp_path / "out", *words)[0] == 0
    ids = np.array(Image.open(tmp_path / "out" / "ids" / "a.png"))
    assert np.array_equal(ids, predicted(sliding.segmenter_path(1), {"mode": "slide", "crop": 24}, picture))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slide", "0"], "--slide"),
        (["--scales", "1,big"], "--scales: expected numbers separated by commas, such as 0.75,1,1.25 (got '1,big')"),
        (["--scales", "0"], "evaluation.scales"),
    ],
)
def test_wrong_words_are_told_in_one_line(run, picture, tmp_path, words, told):
    code, _, errors = command("predict", run.folder, tmp_path / "a.png", "--out", tmp_path / "out", *words)
    assert code == 2
    (line,) = errors.splitlines()
    assert told in line


def test_a_run_is_not_evaluated_as_another_run(run):
    code, _, errors = command("evaluate", run.folder, "scenario.split=offline")
    assert code == 2
    assert "override 'scenario.split=offline': only evaluation.KEY=VALUE can be set for a run" in errors


def test_left_and_right_come_from_the_dataset(tmp_path, monkeypatch):
    job = job_in(tmp_path / "run", tiny_recipe("finetune", *overrides(SLIDING)))
    monkeypatch.setattr(SegmentationDataset, "mirror", ((2, 3), (1, 9)))
    last = job.scenario[-1]
    place = {number: position for position, number in enumerate(last.table.ids)}
    assert job.inference_at(last) == Inference(job.inference, ((place[2], place[3]), (place[1], place[9])))
    assert len(job.inference_at(job.scenario[0]).mirror) < 2


def test_a_recipe_written_before_there_was_a_choice_means_one_look(run):
    path = run.folder / "recipe.yaml"
    text = path.read_text()
    assert read_recipe(path).evaluation == InferenceOptions()
    before, _, after = text.partition("evaluation:\n")
    rest = [line for line in after.splitlines(keepends=True) if not line.startswith((" ", "-"))]
    (other := run.folder.parent / "older.yaml").write_text(before + "".join(rest))
    assert read_recipe(other) == read_recipe(path)
