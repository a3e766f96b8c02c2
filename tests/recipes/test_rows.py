"""The rows that the package exists for: a recipe of each name, and in it what was published."""

import csv
import re
from pathlib import Path

import pytest
import torch

from contseg.dryrun.rehearsal import rehearse
from contseg.engine.schedule import learning_rate
from contseg.models.options import first_widths
from contseg.models.segmenter import Segmenter
from contseg.recipes.catalogue import Entry, system_of
from contseg.recipes.published import published_rows
from contseg.recipes.read import is_of_published_data, read_recipe, recipe_names, recipe_text, resolve
from contseg.scenarios.splits import parse_split

ROWS = list(csv.DictReader((Path(__file__).parent / "rows.csv").read_text(encoding="utf-8").splitlines()))
NAMES = [row["name"] for row in ROWS]
PUBLISHED_DATA = [name for name in recipe_names() if is_of_published_data(name)]
CLASSES = {
    "voc": 20, "ade20k": 150, "isprs": 5, "lip": 20, "cityscapes": 19, "coco-stuff-10k": 182, "pascal-context": 59,
}  # fmt: skip
MILLIONS = {  # trainable parameters of the official constructors
    "ade20k/idrnet_deeplabv3_resnet50-d8": 61.66, "cityscapes/idrnet_deeplabv3_resnet50-d8": 61.45,
    "cocostuff10k/idrnet_deeplabv3_resnet50-d8": 61.70, "lip/idrnet_deeplabv3_resnet50-d8": 60.80,
    "ade20k/idrnet_fcn_resnet50-d8": 55.77, "cityscapes/idrnet_fcn_resnet50-d8": 41.13,
    "cocostuff10k/idrnet_fcn_resnet50-d8": 41.38, "lip/idrnet_fcn_resnet50-d8": 41.13,
    "ade20k/idrnet_psp_resnet50-d8": 55.10, "cityscapes/idrnet_psp_resnet50-d8": 109.06,
    "cocostuff10k/idrnet_psp_resnet50-d8": 55.15, "lip/idrnet_psp_resnet50-d8": 54.24,
    "ade20k/idrnet_uper_resnet50-d8": 70.44, "cityscapes/idrnet_uper_resnet50-d8": 70.24,
    "cocostuff10k/idrnet_uper_resnet50-d8": 63.94, "lip/idrnet_uper_resnet50-d8": 63.03,
    "ade20k/idrnet_uper_swin-large": 305.11, "cocostuff10k/idrnet_uper_swin-large": 305.16,
    "lip/idrnet_uper_swin-large": 285.90, "pascalcontext59/idrnet_uper_swin-large": 304.97,
}  # fmt: skip


def test_there_are_64_rows_of_five_systems():
    systems = [row["system"] for row in ROWS]
    assert {system: systems.count(system) for system in systems} == {
        "sdr": 12, "plop": 12, "idrnet": 20, "lag": 8, "idec": 12,
    }  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
class TestEveryRow:
    def test_is_about_its_system_data_and_protocol(self, row):
        recipe = read_recipe(row["name"])
        scenario = recipe.scenario
        assert (system_of(recipe), recipe.data.dataset, scenario.split) == (row["system"], row["dataset"], row["split"])
        assert not row["setting"] or scenario.setting == row["setting"]
        assert (recipe.network.head.name, recipe.network.backbone.name) == (row["head"], row["backbone"])
        parse_split(scenario.split, CLASSES[row["dataset"]])

    def test_has_the_published_size_and_schedule(self, row):
        recipe = read_recipe(row["name"])
        crop = recipe.data.crop
        if row["crop"]:
            assert row["crop"] == "x".join(map(str, crop if isinstance(crop, list) else [crop, crop]))
        for key in ("lr", "batch", "epochs"):
            if row[key]:
                wanted = float(row[key])
                value = getattr(recipe.training, key)
                assert (value[0] if isinstance(value, list) else value) == wanted

    def test_names_the_weights_that_it_starts_from_and_links_its_source(self, row):
        recipe = read_recipe(row["name"])
        assert recipe.initial_weights
        assert set(recipe.links) >= ({"config", "model", "log"} if row["system"] == "idrnet" else {"code"})

    def test_has_the_published_numbers_beside_it(self, row):
        known = {figure for there in Entry.of(row["name"]).published for figure in (there.old, there.new, there.all)}
        assert {float(text) for text in re.findall(r"[\d.]+", row["published"])} <= known


@pytest.mark.parametrize("name", PUBLISHED_DATA)
class TestEveryRecipeOfPublishedData:
    def test_is_short(self, name):
        assert len(recipe_text(name).splitlines()) < 25

    def test_says_in_its_name_what_it_is(self, name):
        recipe, entry = read_recipe(name), Entry.of(name)
        folder, _, rest = name.partition("/")
        dataset = {"cocostuff10k": "coco-stuff-10k", "pascalcontext59": "pascal-context"}.get(folder, folder)
        assert entry.dataset == dataset
        system, *words = rest.removesuffix("_released").removesuffix("_vitb").split("_")
        assert entry.system == system.removesuffix("-official").removesuffix("-eomt")
        if entry.system == "joint":
            assert words == [entry.split]
        elif entry.system != "idrnet":
            assert words == [recipe.scenario.split, recipe.scenario.setting]
        assert name.endswith("_vitb") == (recipe.network.backbone.name == "vit_base" and system != "mbs")
        assert entry.released == (recipe.method.get("variant") == "released") or "official" in name

    def test_has_rates_in_all_its_steps(self, name):
        training = read_recipe(name).training
        first = 5000 if training.schedule == "warm-twice" else 0  # which begins with a rate of 0
        rates = [learning_rate(training, step, update, 20000) for step in (0, 1) for update in (first, 19999)]
        most = 0.1 if "/dft_" in name else 0.02  # DFT* trains classifiers alone
        assert all(0 < rate <= most for rate in rates)


@pytest.mark.parametrize("name", [name for name in NAMES if "/lag_" in name or "/idec_" in name])
def test_lag_and_idec_stand_in_both_variants(name):
    assert read_recipe(name).method["variant"] == "paper"
    released = read_recipe(f"{name}_released")
    assert released.method["variant"] == "released"
    assert released.scenario.split == read_recipe(name).scenario.split


@pytest.mark.parametrize("name", [name for name in NAMES if "/sdr_" in name])
def test_sdr_follows_the_toolbox_and_its_official_commands_stand_beside_it(name):
    row, official = read_recipe(name), read_recipe(name.replace("sdr_", "sdr-official_"))
    assert (row.training.batch, row.scenario.policy, row.network.backbone.slope) == (24, "plop", 0.01)
    assert (official.training.batch, official.scenario.policy) == (8 if name.startswith("voc") else 4, "mib")
    assert (official.network.backbone.slope, official.network.head.slope, official.method["variant"]) == (
        0.0,
        1.0,
        "released",
    )
    assert official.scenario.setting == row.scenario.setting


@pytest.mark.parametrize("baseline", ["finetune", "frozen", "lwf", "ilt", "mib", "ssul", "ssul-m", "gaussian", "joint"])
def test_every_protocol_of_voc_and_ade20k_has_its_baselines(baseline):
    for row in ROWS:
        if row["dataset"] in ("voc", "ade20k") and row["split"] != "offline":
            ending = row["split"] if baseline == "joint" else f"{row['split']}_{row['setting']}"
            assert f"{row['dataset']}/{baseline}_{ending}" in recipe_names()


@pytest.mark.parametrize("name", MILLIONS)
def test_idrnet_has_as_many_parameters_as_the_official_network(name):
    recipe = read_recipe(name)
    classes = CLASSES[recipe.data.dataset]
    with torch.device("meta"):
        segmenter = Segmenter(recipe.network, first_widths(recipe.network, classes))
    learned = sum(parameter.numel() for parameter in segmenter.parameters() if parameter.requires_grad)
    assert round(learned / 1e6, 2) == MILLIONS[name]


def test_a_recipe_takes_every_value_of_its_protocol_from_a_file():
    for name in NAMES:
        origins = resolve(name).origins
        network = ("network.backbone.name", "network.head.name")
        for key in ("data.dataset", "data.crop", "data.pipeline", "scenario.policy", "training.batch", *network):
            assert key in origins, (name, key)


def test_published_numbers_belong_to_systems_of_the_package_or_to_others_by_name():
    assert {row.method for row in published_rows()} >= {"plop", "mib", "sdr", "sdr+mib", "idec", "lag", "idrnet", "rcil"}


class TestRehearsals:
    """Rows on synthetic data, at a quarter of their crop: a row of each system, and more of each in slow tests."""

    QUICK = (
        "voc/plop_15-1_overlapped",
        "voc/sdr_15-5_disjoint",
        "voc/idec_15-1_overlapped",
        "voc/lag_15-5_overlapped_released",
        "isprs-domain/lag_2-2-1_overlapped",
        "cityscapes/idrnet_psp_resnet50-d8",
    )
    SLOW = (
        "ade20k/plop_100-50_disjoint",
        "voc/plop_10-1_disjoint_released",
        "ade20k/sdr_100-10_overlapped",
        "voc/sdr-official_15-1_disjoint",
        "ade20k/sdr-official_50-50_partitioned",
        "ade20k/idec_50-50_overlapped_released",
        "isprs/idec_2-2-1_overlapped",
        "isprs/idec_4-1_overlapped_released",
        "voc/lag_5-3_overlapped",
        "isprs-domain/lag_4-1_overlapped_released",
        "lip/idrnet_uper_resnet50-d8",
        "ade20k/idrnet_fcn_resnet50-d8",
        "cocostuff10k/idrnet_deeplabv3_resnet50-d8",
        "pascalcontext59/idrnet_uper_swin-large",
        "voc/finetune_15-1_overlapped",
        "ade20k/frozen_100-10_disjoint",
        "voc/ilt_10-1_overlapped",
        "ade20k/mib_100-5_overlapped",
        "voc/ssul-m_15-1_overlapped",
        "voc/joint_5-3",
        "voc/gaussian_15-1_overlapped",
        "isprs/gaussian_4-1_overlapped",
    )

    @pytest.fixture(scope="class")
    def stand_ins(self, tmp_path_factory):
        """Images that rehearsals share."""
        return tmp_path_factory.mktemp("stand-ins")

    @pytest.mark.parametrize("name", QUICK)
    def test_a_row_of_each_system_passes(self, name, stand_ins):
        assert rehearse(name, quarter=True, folder=stand_ins).parameters > 4e7

    @pytest.mark.slow
    @pytest.mark.parametrize("name", SLOW)
    def test_more_pass(self, name, stand_ins):
        assert rehearse(name, quarter=True, folder=stand_ins).parameters > 4e7
