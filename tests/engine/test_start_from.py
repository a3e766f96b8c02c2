"""A trained segmenter stands for step 0: measured, never trained, and the run goes on from it as from a step of its own."""

import shutil
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data.classes import ClassTable, voc_palette
from contseg.data.files import write_palette_png
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop import segmenter_file
from contseg.interop.pretrained import load_pretrained, save_pretrained
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.finetune import Finetune
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_job, resumed_recipe, start_run
from contseg.recipes.read import read_recipe
from contseg.scenarios.plan import make_plan
from tests.conftest import TINY
from tests.engine.runs import (
    COLOURS,
    Watching,
    command,
    folder_of_a_new_class,
    interrupted,
    job_in,
    learn,
    lines,
    same,
    tiny_recipe,
    weights,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run that trained both of its steps."""
    return learn(tmp_path_factory.mktemp("whole") / "run", tiny_recipe("plop"))


@pytest.fixture(scope="module")
def folder(whole, tmp_path_factory):
    segmenter, classes = load_segmenter(whole.segmenter_path(0))
    return save_pretrained(tmp_path_factory.mktemp("given"), segmenter, classes, {"from": "a test"})


def recipe_from(folder, *overrides: str):
    return tiny_recipe("plop", f"start_from={str(folder)!r}", *overrides)


def steps(run: Run) -> list:
    return lines(run, "step")


def test_what_follows_is_what_follows_a_step_of_its_own(whole, folder, tmp_path):
    watching = Watching()
    run = learn(tmp_path / "run", recipe_from(folder), reporter=watching)
    assert watching.updates == [0, 8]
    assert watching.notes == [f"from {folder}", ""]
    assert same(weights(run, 0), weights(whole, 0))
    assert same(weights(run, 1), weights(whole, 1))
    assert steps(run) == steps(whole)
    assert {line["step"] for line in lines(run, "epoch")} == {1}


def test_a_method_with_prototypes_makes_them_of_the_segmenter_that_was_given(whole, folder, tmp_path):
    run = learn(tmp_path / "run", tiny_recipe("sdr", f"start_from={str(folder)!r}"))
    first, last = (run.load_state(step).method for step in (0, 1))
    assert first["counts"][1:].all()
    assert same(weights(run, 0), weights(whole, 0))
    assert torch.equal(last["prototypes"][:6], first["prototypes"]), "old classes rest"
    assert last["counts"][6:].all()


def test_a_single_file_will_do(whole, tmp_path):
    run = learn(tmp_path / "run", recipe_from(whole.segmenter_path(0)))
    assert same(weights(run, 1), weights(whole, 1))


def test_of_a_run_the_last_finished_step_is_taken_and_named(whole, tmp_path):
    first = tmp_path / "first"
    interrupted(first, tiny_recipe("plop"), "updated", 9)  # in step 1
    watching = Watching()
    run = learn(tmp_path / "run", recipe_from(first), reporter=watching)
    assert watching.notes[0] == f"from {first / 'steps' / '00' / 'segmenter.safetensors'}"
    assert same(weights(run, 1), weights(whole, 1))


def test_the_folder_of_a_step_means_the_segmenter_after_it(whole, tmp_path):
    watching = Watching()
    run = learn(tmp_path / "run", recipe_from(whole.folder / "steps" / "00"), reporter=watching)
    assert watching.notes[0] == f"from {whole.segmenter_path(0)}"
    assert same(weights(run, 1), weights(whole, 1))


def test_a_folder_without_a_finished_step_or_without_anything_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContsegError, match=r"start_from: .*empty: contains no model; give a run .*, a segmenter "):
        job_in(tmp_path / "run", recipe_from(tmp_path / "empty"))
    start_run(tiny_recipe("plop"), tmp_path / "begun")
    with pytest.raises(
        ContsegError, match=r"start_from: .*begun: no step of this run is finished yet; finish it with --resume"
    ):
        job_in(tmp_path / "run", recipe_from(tmp_path / "begun"))


def test_its_weights_are_loaded_once(folder, tmp_path, monkeypatch):
    assemble, loaded = segmenter_file.assemble, []

    def watched(description, tensors, where):
        if str(folder) in where and not any(tensor.is_meta for tensor in tensors.values()):
            loaded.append(where)
        return assemble(description, tensors, where)

    monkeypatch.setattr(segmenter_file, "assemble", watched)
    options = ("training.epochs=1", "training.batch=40")
    learn(tmp_path / "run", recipe_from(folder, *options))
    learn(tmp_path / "run", recipe_from(folder, *options))
    assert len(loaded) == 1


def test_no_cache_is_used_or_filled(folder, tmp_path):
    learn(tmp_path / "run", recipe_from(folder), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("event", "count"), [("evaluated", 1), ("step_finished", 1), ("updated", 3), ("updated", 6)])
def test_wherever_it_was_stopped(whole, folder, tmp_path, event, count):
    copy = shutil.copytree(folder, tmp_path / "copy")
    interrupted(tmp_path / "run", recipe_from(copy), event, count)
    if event != "evaluated":
        shutil.rmtree(copy)  # step 0 is in the run now
    run = learn(tmp_path / "run", recipe_from(copy))
    assert steps(run) == steps(whole)
    assert same(weights(run, 1), weights(whole, 1))


def test_the_method_looks_at_it_as_after_training(folder, tmp_path):
    class Looking(Finetune):
        def before_step(self, context):
            self.state[f"before{context.step.index}"] = torch.ones(1)

        def after_step(self, context):
            self.state[f"after{context.step.index}"] = torch.tensor(float(sum(len(batch.names) for batch in context.loader)))

    run = learn(tmp_path / "run", recipe_from(folder), method=Looking())
    assert run.load_state(0).method.keys() == {"before0", "after0"}
    assert run.load_state(0).method["after0"] > 0


def test_commands_take_it_from_the_recipe(folder, tmp_path):
    options = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1", f"start_from={folder}"]
    code, said, errors = command("train", "digits/mib_5-1", *options, "--out", tmp_path / "run")
    assert (code, errors) == (0, "")
    assert f"from {folder}" in said.replace("\n", "")
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_folder_of_nothing_but_the_new_class_is_enough(tmp_path):
    """What a practitioner has: a segmenter, and images in which the one new class is marked."""
    names, root = COLOURS, tmp_path / "data"
    data = folder_of_a_new_class(root)
    torch.manual_seed(0)
    segmenter = Segmenter(NetworkOptions(backbone="resnet18", width=8, head_width=16, initialisation="he"), [3])
    given = save_pretrained(tmp_path / "given", segmenter, ClassTable.of(names[:3]))
    run = learn(tmp_path / "run", recipe_from(given, *data))
    assert run.summary()["steps"] == 2
    warnings = make_plan(job_in(run.folder, recipe_from(given, *data)).scenario, 2).warnings
    assert not [told for told in warnings if "images are repeated" in told]
    assert same(weights(run, 0), segmenter.state_dict())
    assert load_segmenter(run.segmenter_path(1))[1].names == names
    with pytest.raises(ContsegError, match=r"step 0 .* has no training image"):
        job_in(tmp_path / "other", tiny_recipe("plop", *data))
    (root / "classes.txt").write_text("background\nblue\n")  # as an annotation tool exports the new class alone
    for path in (root / "masks").iterdir():
        Image.fromarray(np.array(Image.open(path)) // 3).save(path)
    told = r"red, green: not in the class list of the data, which has to begin with the segmenter's classes in their order"
    with pytest.raises(ContsegError, match=told):
        job_in(tmp_path / "export", recipe_from(given, *data, "scenario.split=offline"))
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    told = (
        r"the training masks contain the ids 0 \(background\), 1 \(red\) and never 3 \(blue\); write masks with the ids of"
    )
    with pytest.raises(ContsegError, match=told):
        job_in(tmp_path / "ids", recipe_from(given, *data))


MISTAKES = {
    "another split": (
        ["scenario.split=4-6"],
        r"start_from: .* has 6 classes \(background, zero, one, two, three, four\), step 0 has 5"
        r" \(background, zero, one, two, three\); they first differ at number 5; set scenario.split",
    ),
    "another order": (
        ["scenario.order=[2, 1, 3, 4, 5, 6, 7, 8, 9, 10]"],
        r"step 0 has 6 \(background, one, zero, two, three, four\); they first differ at number 1;",
    ),
    "two starts": (["backbone_weights=a.pth"], "backbone_weights: start_from brings all weights"),
    "no such folder": (["start_from=/nowhere"], r"start_from: /nowhere: not found; give a run"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_told_before_anything_is_trained(folder, tmp_path, mistake):
    overrides, message = MISTAKES[mistake]
    with pytest.raises(ContsegError, match=message) as caught:
        job_in(tmp_path / "run", recipe_from(folder, *overrides))
    assert "\n" not in str(caught.value)


def test_a_segmenter_without_background_cannot_be_extended_and_that_is_the_reason_told(tmp_path):
    names, rng = ("road", "red", "green"), np.random.default_rng(0)
    network = NetworkOptions(backbone="resnet18", width=2, head_width=4)
    given = save_pretrained(tmp_path / "given", Segmenter(network, (3,)), ClassTable.of(names, background="none"), {})
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(6):
        mask = rng.integers(0, 4, (32, 32), dtype=np.uint8)
        Image.fromarray(np.dstack([mask] * 3)).save(tmp_path / "data" / "images" / f"{number}.png")
        write_palette_png(tmp_path / "data" / "masks" / f"{number}.png", mask, list(voc_palette(4)))
    (tmp_path / "data" / "classes.txt").write_text("\n".join((*names, "blue")) + "\n")
    data = ("data.dataset=folder", f"data.path={str(tmp_path / 'data')!r}", "data.options={background: none}")
    recipe = read_recipe("folder/plop", [f"start_from={str(given)!r}", *data, "scenario.split=3-1"])
    with pytest.raises(
        ContsegError, match=r"a segmenter without an output for background cannot mark .* cannot be extended"
    ):
        make_job(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("network.width=4", "network.backbone.width", "4"),
        ("network.backbone.width=4", "network.backbone.width", "4"),
        ("network.backbone=resnet34", "network.backbone.name", "resnet34"),
        ("network={head: fcn}", "network.head.name", "fcn"),
    ],
)
def test_a_network_that_the_user_sets_must_be_that_of_the_segmenter(folder, tmp_path, change, key, value):
    with pytest.raises(
        ContsegError, match=rf"{key}: '?{value}'? was set, and the segmenter in start_from .* has "
    ) as caught:
        job_in(tmp_path / "run", recipe_from(folder, change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_network_file_of_the_user_must_agree_too(folder, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"extends: digits/plop_5-1\nname: own\nstart_from: {folder}\nnetwork: {{width: 4}}\n")
    with pytest.raises(ContsegError, match=r"network\.backbone\.width: 4 was set"):
        make_job(read_recipe(own), tmp_path / "run", new=True)


def test_the_network_of_a_packaged_recipe_gives_way_and_the_segmenters_own_is_written_down(folder, tmp_path):
    """The recipe's own is a resnet18 of the usual width; nobody asked for it."""
    tiny = [one for one in TINY if not one.startswith("network.")]
    recipe = read_recipe("digits/plop_5-1", [*tiny, "scenario.split=5-5", "training.batch=10", f"start_from={folder}"])
    assert recipe.network.backbone.width != 8
    run = learn(tmp_path / "run", recipe)
    assert read_recipe(run.folder / "recipe.yaml").network == load_pretrained(folder)[0].options
    assert resumed_recipe(run.folder, recipe) == resumed_recipe(run.folder)
    with pytest.raises(ContsegError, match=r"network\.backbone\.width was 8, is 4"):
        resumed_recipe(run.folder, read_recipe(run.folder / "recipe.yaml", ["network.width=4"]))


def test_another_start_is_another_run(folder, tmp_path):
    learn(tmp_path / "run", recipe_from(folder))
    code, _, errors = command("train", "--resume", tmp_path / "run", "start_from=elsewhere")
    assert code == 2
    assert "start_from was" in errors


def test_an_unknown_that_the_policy_does_not_have_is_told(folder, tmp_path):
    _, classes = load_pretrained(folder)
    options = NetworkOptions(backbone="resnet18", width=8, head_width=16, initialisation="he", unknown=True)
    given = save_pretrained(tmp_path / "given", Segmenter(options, [1, 1, len(classes) - 1]), classes)
    with pytest.raises(ContsegError, match='has an output "unknown", and policy plop needs none'):
        job_in(tmp_path / "run", recipe_from(given))


def test_an_unknown_that_the_policy_misses_is_told(folder, tmp_path):
    class Able(Finetune):
        handles_unknown = True

    recipe = recipe_from(folder, "scenario.policy=ssul")
    start_run(recipe, tmp_path / "run")
    with (
        mock.patch("contseg.recipes.build.make_method", return_value=Able()),
        pytest.raises(ContsegError, match='has no output "unknown", and policy ssul needs one'),
    ):
        make_job(recipe, tmp_path / "run")


def test_a_run_is_not_replaced_by_one_that_starts_from_it(whole, tmp_path):
    copy = shutil.copytree(whole.folder, tmp_path / "run")
    start = f"start_from={copy / 'steps' / '00' / 'segmenter.safetensors'}"
    code, _, errors = command("train", "digits/plop_5-1", *TINY, "scenario.split=5-5", start, "--out", copy, "--overwrite")
    assert code == 2
    assert f"is in {copy}, which the new run replaces; set another --out" in errors
    assert (copy / "summary.json").is_file()
