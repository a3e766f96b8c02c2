"""A model of another library is step 0 of a run: it is measured, taught a class, saved, resumed and predicted with."""

import pytest
import torch

import contseg
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.interop.segmenter_file import load_segmenter
from contseg.methods.registry import make_method
from contseg.models.adopted.options import MODELS
from contseg.models.adopted.segmenter import adopt
from contseg.recipes.build import make_job
from contseg.recipes.models import open_model
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from tests.engine.runs import COLOURS, command, folder_of_a_new_class, interrupted, learn, same, weights
from tests.kinds import PIXELS
from tests.models.test_adopted import Toy
from tests.trees import foreign

OLD = COLOURS[:3]


def toy() -> Toy:
    """A function for `register_model`."""
    return Toy(outputs=len(OLD))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """Overrides for a folder in which only the class `blue` is labelled."""
    return folder_of_a_new_class(tmp_path_factory.mktemp("data") / "folder")


@pytest.fixture
def toy_folder(forgotten, tmp_path):
    MODELS.register(toy, "toy")
    torch.manual_seed(0)
    return contseg.save_pretrained(tmp_path / "toy", adopt(toy(), OLD, name="toy"), contseg.ClassTable.of(OLD))


@pytest.fixture
def saved(monkeypatch, tmp_path):
    monkeypatch.setattr(foreign, "NAMES", OLD)
    return lambda name: foreign.save_foreign(name, tmp_path / name)


def recipe_from(start, data: list[str], method: str, *overrides: str) -> Recipe:
    small = ["data.crop=32", "training.epochs=1", "training.lr=0.01", *data, f"start_from={str(start)!r}"]
    return read_recipe(f"digits/{method}_5-1", [*small, *overrides])


READING_HEAD_OR_LOGITS = [
    name
    for name in PIXELS
    if {*make_method(name).taps, *make_method(name).first_taps} <= {"head", "logits"}
    and not make_method(name).needs_unknown
    and "learned" in make_method(name).backgrounds
    and name != "cfsseg"  # adds to sums of step 0, see below
]


@pytest.mark.parametrize("name", READING_HEAD_OR_LOGITS)
def test_every_method_that_reads_only_the_head_or_logits_learns_a_class(name, toy_folder, data, tmp_path):
    epochs = "training.epochs=1" if make_method(name).updates_later_steps else "training.epochs=[1, 0]"
    run = learn(tmp_path / "run", recipe_from(toy_folder, data, "finetune", f"method.name={name}", epochs))
    first, last = (load_segmenter(run.segmenter_path(step)) for step in (0, 1))
    kept = {name: value for name, value in first[0].state_dict().items() if ".later." not in name}  # reserved by DFT*
    assert same(kept, contseg.load_pretrained(toy_folder)[0].state_dict())
    assert (last[1].names, last[0].widths) == (COLOURS, [3, 1])


@pytest.mark.parametrize("name", [name for name in PIXELS if name not in (*READING_HEAD_OR_LOGITS, "cfsseg")])
def test_other_methods_fail_before_the_run_begins(name, toy_folder, data, tmp_path):
    with pytest.raises(ContsegError) as error:
        make_job(recipe_from(toy_folder, data, "finetune", f"method.name={name}"), tmp_path / "run", new=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_cfsseg_tells_that_there_are_no_sums_of_the_old_classes(toy_folder, data, tmp_path):
    small = ["method={name: cfsseg, expansion: 8}", "training.epochs=[1, 0]"]
    with pytest.raises(ContsegError, match=r"'cfsseg' adds to the sums of earlier steps, and there are none") as error:
        learn(tmp_path / "run", recipe_from(toy_folder, data, "finetune", *small))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("library", "method"), [("segformer", "finetune"), ("smp-unet", "lwf"), ("lraspp", "mib")])
def test_models_of_every_library_learn_a_class(library, method, saved, data, tmp_path):
    path = saved(library)
    run = learn(tmp_path / "run", recipe_from(path, data, method))
    assert same(weights(run, 0), open_model(path).segmenter.state_dict())
    model = open_model(run.folder)
    assert (model.kind, model.classes.names, model.segmenter.widths) == ("run", COLOURS, [3, 1])


def test_a_run_is_resumed_with_the_same_bits(saved, data, tmp_path):
    recipe = recipe_from(saved("segformer"), data, "mib", "training.epochs=2")
    whole = learn(tmp_path / "whole", recipe)
    interrupted(tmp_path / "run", recipe, "updated", 3)
    assert same(weights(learn(tmp_path / "run", recipe)), weights(whole))


def test_a_model_is_predicted_and_evaluated_from_the_command_line(saved, make_folder, tmp_path):
    path, folder = saved("lraspp"), make_folder(8)
    code, _, err = command("predict", path, folder / "images", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "out" / "ids").iterdir())) == 8
    given = ("data.dataset=folder", f"data.path={folder}", "data.options={}", "scenario.split=2-1")
    code, out, err = command("evaluate", path, "--recipe", "digits/finetune_5-1", *given)
    assert (code, err) == (0, "")
    assert "step 0: 2 images" in " ".join(out.split())  # the title of a table is wrapped


@pytest.mark.slow
def test_two_processes_do_not_wait_for_parameters_without_effect(saved, data, tmp_path):
    run = learn(tmp_path / "run", recipe_from(saved("beit"), data, "lwf", "training.devices=2"))
    assert len(Run(run.folder).confusions()) == 2
