"""The description of a sweep: which runs it has, and what `sweep.yaml` may hold."""

import re

import pytest

from contseg.differences import differences
from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe
from contseg.sweeps.beside import changes
from contseg.sweeps.sweep import FILE, Sweep

MIB, PLOP = "digits/mib_5-1", "digits/plop_5-1"


def names(sweep: Sweep, folder) -> list[str]:
    return [str(cell.folder.relative_to(folder)) for cell in sweep.cells(folder)]


def test_runs_are_the_product_of_all_that_is_listed_seed_by_seed(tmp_path):
    sweep = Sweep(recipes=[MIB, PLOP], seeds=[3, 1], orders=2, vary={"training.lr": [0.1, 0.2]})
    cells = sweep.cells(tmp_path)
    assert names(sweep, tmp_path)[:5] == [
        "digits-mib_5-1,training.lr=0.1/1",
        "digits-mib_5-1,training.lr=0.2/1",
        "digits-plop_5-1,training.lr=0.1/1",
        "digits-plop_5-1,training.lr=0.2/1",
        "digits-mib_5-1,training.lr=0.1/1,seed-1",
    ]
    assert len(cells) == len({cell.folder for cell in cells}) == 16
    assert {(cell.seed, cell.order, cell.recipe.training.seed, cell.recipe.scenario.order) for cell in cells} == {
        (1, "natural", 1, "natural"),
        (1, "seed:1", 1, "seed:1"),
        (3, "natural", 3, "natural"),
        (3, "seed:1", 3, "seed:1"),
    }
    assert cells[4].title == "digits-mib_5-1,training.lr=0.1, seed 1, order seed:1"
    assert cells[4].label == "digits/mib_5-1 training.lr=0.1"


def test_a_run_has_the_recipe_that_train_would_have(tmp_path):
    (cell,) = Sweep(recipes=[MIB], seeds=[7], orders=["seed:2"], overrides=["training.lr=0.5"]).cells(tmp_path)
    assert cell.recipe == read_recipe(MIB, ["training.lr=0.5", "scenario.order=seed:2", "training.seed=7"])


def test_the_order_of_the_recipe_has_one_name_however_it_is_listed(tmp_path):
    listed = Sweep(recipes=[MIB], seeds=1, orders=["natural", "own", "seed:1"])
    assert names(listed, tmp_path) == names(Sweep(recipes=[MIB], seeds=1, orders=2), tmp_path)


def test_an_order_that_is_a_list_has_a_short_name_however_it_is_written(tmp_path):
    backwards = [0, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    listed = Sweep(recipes=[MIB], seeds=1, orders=["own", str(backwards)], overrides=[f"scenario.order={backwards}"])
    (cell,) = listed.cells(tmp_path)
    assert re.fullmatch(r"list of 11 \([0-9a-f]{6}\)", cell.order)


def test_orders_are_published_ones_where_there_are_some_and_joint_training_has_them_too(tmp_path):
    voc = Sweep(recipes=["voc/mib_15-1_overlapped"], seeds=1, orders=24, beside=["joint"], overrides=["data.path=x"])
    cells = voc.cells(tmp_path)
    assert [cell.order for cell in cells[::2]] == ["natural", *"bcdefghijklmnopqrstuvw", "seed:1"]
    mib, joint = cells[2], cells[3]
    assert (mib.order, joint.order, mib.recipe.scenario.order) == ("b", "b", "b")
    assert joint.recipe.scenario.order[:3] == [0, 12, 9]  # `b` is published for 15-1, not for one step
    other = Sweep(recipes=["voc/mib_15-5_overlapped"], seeds=1, orders=2)
    assert [cell.order for cell in other.cells(tmp_path)] == ["natural", "seed:1"]


@pytest.mark.parametrize("kind", ["joint", "finetune"])
def test_what_runs_beside_has_the_same_network_and_data_and_is_shared(tmp_path, kind):
    rows = Sweep(recipes=[MIB, PLOP], beside=[kind], vary={"method.name": ["mib"]} if kind == "never" else {}).rows()
    assert list(rows) == ["digits-mib_5-1", "digits-plop_5-1", kind]
    reference, recipe = (read_recipe(row.recipe, row.overrides) for row in (rows[kind], rows["digits-mib_5-1"]))
    assert reference.network == recipe.network
    assert reference.data == recipe.data
    assert reference.method == {"name": "finetune"}
    assert reference.scenario.split == {"joint": "offline", "finetune": "5-1"}[kind]
    assert reference.scenario.scored_as == {"joint": "5-1", "finetune": None}[kind]


def test_joint_training_is_that_of_the_packaged_recipe():
    recipe = read_recipe("voc/mib_15-5_disjoint")
    joint = read_recipe("voc/mib_15-5_disjoint", changes("joint", recipe))
    packaged = read_recipe("voc/joint_15-5")
    changed = differences(packaged.model_dump(mode="json"), joint.model_dump(mode="json"))
    assert changed.keys() <= {"name", "note", "based_on", "scenario.setting"}  # one step has all images in any setting


def test_other_networks_and_settings_have_references_of_their_own():
    rows = Sweep(recipes=[MIB, "digits/ssul_5-1"], beside=["joint"], vary={"network.width": [8, 16]}).rows()
    assert [row.label for row in rows.values()][4:] == [
        "joint",
        "joint (digits/mib_5-1 network.width=16)",
        "joint (digits/ssul_5-1 network.width=8)",
        "joint (digits/ssul_5-1 network.width=16)",
    ]


def test_hyper_parameters_of_a_method_are_not_those_of_its_references():
    rows = Sweep(recipes=[MIB], beside=["joint", "finetune"], vary={"method.distillation": [1, 10]}).rows()
    assert list(rows)[2:] == ["joint", "finetune"]


def test_a_recipe_that_is_fine_tuning_itself_is_not_repeated():
    assert list(Sweep(recipes=["digits/finetune_5-1", MIB], beside=["finetune"]).rows()) == [
        "digits-finetune_5-1",
        "digits-mib_5-1",
    ]


def test_a_method_without_updates_uses_the_fine_tuning_of_another_one():
    assert "finetune" in Sweep(recipes=["digits/gaussian_5-1", MIB], beside=["finetune"]).rows()
    with pytest.raises(ContsegError, match="--with finetune: no recipe has epochs in later steps"):
        Sweep(recipes=["digits/gaussian_5-1"], beside=["finetune"]).rows()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"recipes": []}, "no recipe is listed"),
        ({"seeds": 0}, "no seed is listed"),
        ({"seeds": []}, "no seed is listed"),
        ({"orders": []}, "no class order is listed"),
        ({"vary": {"training.lr": []}}, "training.lr has no values"),
        ({"vary": {"data.path": ["a", "b"]}}, "data.path cannot be varied"),
        ({"vary": {"training.seed": [1, 2]}}, "training.seed cannot be varied; use --seeds"),
        ({"vary": {"scenario.order": ["natural"]}}, "scenario.order cannot be varied; use --orders"),
        ({"vary": {"training.workers": [1, 2]}}, "training.workers cannot be varied"),
        ({"vary": {"name": ["a", "b"]}}, "name cannot be varied"),
        ({"vary": {"training.lrr": [1]}}, "training.lrr: unknown key"),
        ({"recipes": [MIB, MIB]}, f"recipes: {MIB} is listed twice"),
        ({"seeds": [1, 0, 1]}, "--seeds: 1 is listed twice"),
        ({"orders": ["own", "own"]}, "--orders: own is listed twice"),
        ({"beside": ["joint", "joint"]}, "--with: joint is listed twice"),
        ({"vary": {"training.lr": [1.0, 1]}}, "--vary: training.lr: 1 is listed twice"),
    ],
)
def test_a_sweep_without_runs_or_with_keys_that_cannot_be_varied_is_an_error(tmp_path, fields, problem):
    with pytest.raises(ContsegError, match=problem):
        Sweep(**({"recipes": [MIB]} | fields)).cells(tmp_path)


def test_a_sweep_is_written_and_read_again(tmp_path):
    sweep = Sweep(
        recipes=[MIB], seeds=[0, 5], orders=["own", "seed:3"], vary={"training.epochs": [[2, 1], 3]}, beside=["joint"],
        overrides=["data.flip=0"], plugins=["timm"],
    )  # fmt: skip
    sweep.write(tmp_path / "out")
    assert Sweep.read(tmp_path / "out") == Sweep.read(tmp_path / "out" / FILE) == sweep
    assert (tmp_path / "out" / FILE).read_text().startswith("format: 1\nrecipes:\n- digits/mib_5-1\n")


def test_files_in_a_sweep_that_is_written_by_hand_are_relative_to_it(tmp_path):
    (tmp_path / "own.yaml").write_text(f"extends: {MIB}\nname: own\n")
    (tmp_path / "mine.yaml").write_text("recipes: [own.yaml, digits/plop_5-1]\nseeds: 1\nwith: [finetune]\n")
    sweep = Sweep.read(tmp_path / "mine.yaml")
    assert sweep.recipes == [str(tmp_path / "own.yaml"), PLOP]
    assert names(sweep, tmp_path) == ["own/0", "digits-plop_5-1/0", "finetune/0"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seeds: 3\n", "describes no sweep"),
        ("[1, 2]\n", "describes no sweep"),
        ("recipes: a\n", "recipes: Input should be a valid list"),
        ("recipes: [a]\nseeds: many\n", "seeds: "),
        ("recipes: [a]\nseeds: [-1]\n", "seeds: "),
        ("recipes: [a]\nwith: [joined]\n", "with: Input should be 'joint' or 'finetune'"),
        ("recipes: [a]\nsed: 3\n", "sed: unknown key; did you mean 'seeds'"),
        ("seeds: 3\n", "describes no sweep .recipes: is missing.; correct recipes, such as recipes: .digits/mib_5-1."),
        (
            "recipes: [a]\nseeds: [0, -1]\n",
            "seeds: Input should be greater than or equal to 0 .got -1.; correct seeds, such as",
        ),
        (
            "recipes: [a]\nwith: joint\n",
            "with: Input should be a valid list .*; correct with, such as with: .joint, finetune.",
        ),
        ("format: 2\nrecipes: [a]\n", "another version of contseg .format 2, this one reads 1."),
    ],
)
def test_a_file_that_is_no_sweep_is_an_error_that_names_the_key(tmp_path, text, problem):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ContsegError, match=f"sweep.yaml: .*{problem}"):
        Sweep.read(tmp_path)
