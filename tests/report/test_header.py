"""The head of a report: what was run, and a command that repeats it."""

import shlex

import pytest

from contseg.engine.run import Run
from contseg.recipes.read import read_recipe, to_yaml
from contseg.report.comparison import recorded_recipe
from contseg.report.header import command_of, facts_line, title_of


def command(tmp_path, recipe) -> list[str]:
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    return shlex.split(command_of(Run(tmp_path), recorded_recipe(Run(tmp_path))))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["training.lr=1e-5", "training.epochs=[9, 5]", "training.seed=3", "data.path=/a folder/b"],
        ["scenario.order=seed:3", "data.test_crop=", "scenario.memory={size: 9}"],
        ["network.backbone.name=resnet18", "network.head=fcn", "method.name=mib"],
        ["method.variant=released", "data.path=on", "note=in short"],
    ],
    ids=len,
)
def test_the_command_makes_the_same_recipe_again(tmp_path, overrides):
    recipe = read_recipe("voc/plop_15-1_overlapped", overrides)
    program, word, name, *words = command(tmp_path, recipe)
    assert (program, word, name) == ("contseg", "train", "voc/plop_15-1_overlapped")
    assert bool(words) == bool(overrides)
    again = read_recipe(name, words).model_dump()
    assert again | {"note": ""} == recipe.model_dump() | {"note": ""}


def test_a_recipe_of_one_s_own_is_repeated_from_the_folder(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(to_yaml(read_recipe("digits/plop_5-1").model_copy(update={"based_on": None, "name": "mine"})))
    assert command(tmp_path, read_recipe(own)) == ["contseg", "train", str(tmp_path / "recipe.yaml")]


def facts(**changed):
    made = {"date": "2026-11-27T05:10:37+00:00", "contseg": "0.1.0", "commit": "abc", "device": "a GPU", "ranks": 1}
    found = {"method": "plop", "protocol": "voc 15-1", "seconds": 7200, "plan": {"hash": "f00"}, "environment": made}
    return found | changed


def test_the_facts_of_several_runs_are_named_once():
    runs = {"a": facts(), "b": facts(seconds=3600, environment=facts()["environment"] | {"device": "a CPU", "ranks": 2})}
    assert facts_line(runs) == {
        "date": "2026-11-27", "version": "0.1.0", "commit": "abc", "device": "a GPU, 2 ranks on a CPU", "time": "3.0 h",
        "plan": "f00",
    }  # fmt: skip


def test_what_earlier_versions_did_not_record_is_left_out():
    assert list(facts_line({"a": facts(environment={})})) == ["time", "plan"]
    assert "date" not in facts_line({"a": facts(environment={"date": "yesterday"})})


def test_the_title_names_methods_and_protocol_or_their_numbers():
    assert title_of({"a": facts(), "b": facts()}) == "plop (2 runs) on voc 15-1"
    assert title_of({"a": facts(), "b": facts(method="mib", protocol="voc 10-1")}) == "plop, mib on 2 protocols"
    assert title_of({str(number): facts(method=str(number)) for number in range(9)}) == "9 methods on voc 15-1"
    assert title_of({"folder": facts(method="")}) == "folder on voc 15-1"
