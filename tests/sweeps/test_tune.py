"""What a tuning searches and reports, and which trials it has, also after kills; nothing is trained here."""

import pytest

from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe
from contseg.sweeps.space import Between, OneOf, range_of, space_of
from contseg.sweeps.study import STUDY, Study
from contseg.sweeps.tune import FILE, Tune, cells, chosen_recipe

PLOP = "digits/plop_5-1"
SPACE = {"method.pod": "1e-3:1e-1:log", "training.batch": "8:16", "training.epochs": "{[9, 5],3}"}


def tuning(**fields) -> Tune:
    return Tune(**{"recipe": PLOP, "on": ["seed:1"], "space": SPACE, "trials": 14, "round": 4} | fields)


# --- the space


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:1", Between(0, 1)),
        ("1:8:log", Between(1, 8, log=True)),
        ("0:0.5", Between(0.0, 0.5)),
        ("-1.5:2", Between(-1.5, 2.0)),
        ("1e-3:1e-1:log", Between(0.001, 0.1, log=True)),
        ("{a,b}", OneOf(("a", "b"))),
        ("{1,true,null,[2, 3]}", OneOf(("1", "true", "null", "[2, 3]"))),
    ],
)
def test_a_range_is_read(text, expected):
    found = range_of("method.x", text)
    assert (found, type(getattr(found, "low", None))) == (expected, type(getattr(expected, "low", None)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1", "expected a range"),
        ("a:b", "expected a range"),
        ("1:2:lin", "expected a range"),
        ("1:2:log:log", "expected a range"),
        (":1", "expected a range"),
        ("1_0:20", "expected a range"),
        ("2:1", "2 is not below 1"),
        ("1:1", "1 is not below 1"),
        ("0:1:log", "log needs ends above 0"),
        ("0:inf", "finite"),
        ("nan:1", "finite"),
        ("1e999:2", "finite"),
        ("{a}", "two different values"),
        ("{a,a}", "two different values"),
        ("{}", "two different values"),
        ("{a,[}", "not YAML"),
    ],
)
def test_a_wrong_range_is_one_line(text, problem):
    with pytest.raises(ContsegError, match=problem) as error:
        range_of("method.x", text)
    assert str(error.value).startswith(f"--space: method.x={text}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ([], "is missing"),
        (["method.x"], "expected KEY=RANGE"),
        (["method.x="], "expected KEY=RANGE"),
        (["=1:2"], "expected KEY=RANGE"),
        (["a.=1:2"], "expected KEY=RANGE"),
        (["method.x=1:2", "method.x=1:3"], "method.x occurs twice"),
        (["training.seed=0:9"], "training.seed cannot be tuned"),
        (["scenario.split={5-1,5-5}"], "scenario.split cannot be tuned"),
        (["data.path={a,b}"], "data.path cannot be tuned"),
    ],
)
def test_a_wrong_space_is_an_error(settings, problem):
    with pytest.raises(ContsegError, match=f"--space: .*{problem}"):
        space_of(settings)


def test_a_suggested_value_has_six_digits_and_stays_in_its_range():
    one = Between(0.1, 0.123456789)
    assert (one.rounded(0.11111111111), one.rounded(0.1234567889)) == (0.111111, 0.123456789)
    assert Between(1, 9).rounded(7) == 7


# --- the description


def test_it_is_written_and_read_again(tmp_path):
    tune = tuning(report_on=["own,seed:2"], seeds=[4], overrides=["training.batch=8"])
    tune.write(tmp_path)
    assert Tune.read(tmp_path) == Tune.read(tmp_path / FILE) == tune


def test_the_search_has_another_class_order_and_its_own_overrides(tmp_path):
    tune = tuning(
        on=["seed:1,seed:2", "training.batch=4"], overrides=["data.flip=0"], search_seeds=2, space={"method.pod": "0:1"}
    )
    rows = tune.trial_rows({3: {"method.pod": 0.25}})
    runs = cells(rows, tmp_path)
    assert [str(cell.folder.relative_to(tmp_path)) for cell in runs] == [
        "trial-003/0,seed-1", "trial-003/0,seed-2", "trial-003/1,seed-1", "trial-003/1,seed-2",
    ]  # fmt: skip
    assert runs[0].recipe == read_recipe(
        PLOP, ["data.flip=0", "training.batch=4", "method.pod=0.25", "scenario.order=seed:1", "training.seed=0"]
    )
    assert {cell.order for cell in cells(tune.report_sweep().rows())} == {"natural"}


def test_the_search_may_have_another_recipe():
    tune = tuning(on=["voc/plop_15-1_overlapped", "data.path=VOC"], space={"method.pod": "0:1"})
    tune.check()
    assert tune.search_row().recipe == "voc/plop_15-1_overlapped"
    assert not tune.shares_images()
    assert tuning(space={"method.pod": "0:1"}).shares_images()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"on": ["own"]}, "digits in class order natural is also reported"),
        ({"on": ["training.batch=4"], "space": {"method.pod": "0:1"}}, "is also reported"),
        ({"on": ["2"]}, "is also reported"),
        ({"on": ["seed:1"], "report_on": ["own,seed:1"]}, "class order seed:1 is also reported"),
        ({"on": ["digits/mib_5-1", "seed:1"]}, "method.pod|mib"),
        ({"on": ["digits/mib_5-1", "seed:1"], "space": {"training.lr": "0.1:1"}}, "has method mib, and .* has plop"),
        ({"on": ["digits/mib_5-1", "digits/plop_5-1"]}, "two recipes"),
        ({"space": {"method.pod": "-1:1"}}, "method.pod"),
        ({"space": {"method.pood": "0:1"}}, "method.pood"),
        ({"space": {"training.lr": "{0.1,high}"}}, "training.lr"),
        ({"overrides": ["method.pod=1"]}, "method.pod is also set by method.pod=1"),
        ({"recipe": "digits/plob_5-1"}, "not found"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(fields, problem):
    with pytest.raises(ContsegError, match=problem):
        tuning(**fields).check()


def test_the_chosen_recipe_is_the_recipe_with_the_values(tmp_path):
    values = {"method.pod": 0.02, "training.batch": 9, "training.epochs": "[9, 5]"}
    (tmp_path / "chosen.yaml").write_text(chosen_recipe(tuning(), 2, values))
    expected = read_recipe(PLOP, ["method.pod=0.02", "training.batch=9", "training.epochs=[9, 5]"])
    found = read_recipe(tmp_path / "chosen.yaml")
    assert found.model_copy(update={"name": expected.name, "based_on": expected.based_on}) == expected


# --- the trials


def score(values) -> float:
    return 50 - 1000 * abs(values["method.pod"] - 0.02) + values["training.batch"]


def finished(study: Study, stop_at: int | None = None) -> dict:
    """Train all trials, or leave before a result, as a killed process does."""
    while trials := study.round():
        for number, values in trials.items():
            if number == stop_at:
                return study.values()
            study.tell(number, None if number == 2 else score(values))
    return study.values()


def test_the_first_trial_has_the_values_of_the_recipe_if_they_are_in_the_space(tmp_path):
    recipe = read_recipe(PLOP)
    space = {"method.pod": "1e-4:1e-1:log", "training.batch": "4:64", "data.flip": "{0.5,0.0,0.25}"}
    assert tuning(space=space).own_values() == {
        "method.pod": recipe.method["pod"], "training.batch": recipe.training.batch, "data.flip": str(recipe.data.flip),
    }  # fmt: skip
    assert tuning(space=space | {"training.batch": "1:2"}).own_values() is None


def test_trials_are_the_same_after_kills_with_a_torn_journal(tmp_path):
    pytest.importorskip("optuna")
    whole = finished(Study(tuning(), tmp_path / "whole"))
    for stop in (0, 3, 5, 11, None):
        folder = tmp_path / "killed"
        seen = finished(Study(tuning(), folder), stop)
        assert seen == {number: whole[number] for number in seen}
        with (folder / STUDY).open("ab") as file:
            file.write(b'{"op_code":5,"wor')
    study = Study(tuning(), folder)
    assert study.values() == whole
    assert len(whole) == 14
    assert [study.state(number) for number in range(4)] == ["finished", "finished", "failed", "finished"]
    assert study.best() == max(study.scores(), key=study.scores().get)


def test_more_trials_are_those_that_a_longer_tuning_would_have_had(tmp_path):
    pytest.importorskip("optuna")
    finished(Study(tuning(trials=6), tmp_path / "short"))
    longer = finished(Study(tuning(), tmp_path / "short"))
    assert longer == finished(Study(tuning(), tmp_path / "long"))


def test_another_seed_suggests_other_values_within_the_space(tmp_path):
    pytest.importorskip("optuna")
    first, second = (Study(tuning(sampler_seed=seed), tmp_path / str(seed)).round() for seed in (0, 1))
    assert len(first) == len(second) == 4
    assert first != second
    for values in [*first.values(), *second.values()]:
        assert 0.001 <= values["method.pod"] <= 0.1
        assert values["training.batch"] in range(8, 17)
        assert values["training.epochs"] in ("[9, 5]", "3")


def test_a_file_that_is_no_journal_is_one_line(tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / STUDY).write_text("not a journal\nat all\n")
    with pytest.raises(ContsegError, match=r"study.log: not a journal of Optuna"):
        Study(tuning(), tmp_path)
