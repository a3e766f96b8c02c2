"""The table of published numbers, and which of its rows belong beside a recipe."""

from dataclasses import asdict

import pytest

from contseg.data.open import DATASETS
from contseg.methods.registry import METHODS
from contseg.recipes.published import FIGURES, PublishedRow, method_key, published_for, published_rows
from contseg.recipes.read import read_recipe
from contseg.scenarios.splits import parse_split

FOREGROUND = {"voc": 20, "ade20k": 150, "ade20k-panoptic": 150, "isprs": 5}
ELSEWHERE = {"simcis", "comformer", "balconpas", "balconpas-m", "eclipse", "comastre"}
"""Methods that the package has not, kept for tables that span the field."""

DO_NOT_ADD_UP = {
    ("plop", "voc", "15-5", "overlapped", 70.09): "as printed; its own parts give 70.01",
    ("cfsseg", "voc", "15-1", "sequential", 70.0): "as quoted; its own parts give 69.5",
    ("cfsseg", "voc", "15-5", "sequential", 70.0): "as quoted; its own parts give 69.5",
    ("plop", "voc", "15-1", "disjoint", 46.48): "as quoted; its own parts give 47.34",
    ("comastre", "ade20k", "100-5", "overlapped", 32.6): "as quoted; its own parts give 32.5",
    ("eclipse", "ade20k", "100-10", "overlapped", 34.6): "as quoted; its own parts give 34.7",
    ("eclipse", "ade20k", "100-50", "overlapped", 37.1): "as quoted; its own parts give 37.2",
    ("balconpas", "ade20k", "100-10", "overlapped", 38.6): "as quoted; its own parts give 39.6",
    ("comformer", "ade20k", "100-50", "overlapped", 38.4): "as quoted; its own parts give 35.1",
    ("mbs", "voc", "5-3", "overlapped", 77.0): "as quoted; its own parts give 77.15",
    ("mbs", "ade20k", "100-5", "overlapped", 38.8): "as quoted, without classes whose IoU is 0; its own parts give 36.97",
}


def known(row: PublishedRow) -> bool:
    return None not in (row.old, row.new, row.all) and bool(row.background)


def name(row: PublishedRow) -> str:
    return f"{row.method}-{row.dataset}-{row.split}-{row.setting}-{row.ratio}-{row.source}"


def digits(value: float) -> int:
    """Decimals that a figure is printed with."""
    return len(str(value).partition(".")[2])


def rows(recipe: str, *overrides: str) -> list[PublishedRow]:
    return published_for(read_recipe(recipe, overrides))


class TestTable:
    @pytest.mark.parametrize("row", filter(known, published_rows()), ids=name)
    def test_all_is_the_mean_of_old_and_new_with_or_without_background_as_declared(self, row):
        base = parse_split(row.split, FOREGROUND[row.dataset])[0]
        new, counted = FOREGROUND[row.dataset] - base, row.background == "yes"
        mean = ((base + counted) * row.old + new * row.new) / (base + counted + new)
        rounding = 10.0 ** -max(digits(value) for value in (row.old, row.new, row.all))  # half a unit in each of the two
        adds_up = abs(mean - row.all) <= rounding + 1e-9
        excused = (row.method, row.dataset, row.split, row.setting, row.all) in DO_NOT_ADD_UP
        assert adds_up != excused, mean

    def test_every_excuse_is_of_a_row(self):
        told = {(row.method, row.dataset, row.split, row.setting, row.all) for row in published_rows()}
        assert told >= DO_NOT_ADD_UP.keys()

    def test_a_source_says_a_thing_once(self):
        said = [tuple(value for key, value in asdict(row).items() if key not in FIGURES) for row in published_rows()]
        assert len(set(said)) == len(said)

    @pytest.mark.parametrize(
        ("column", "allowed"),
        [
            ("method", {*METHODS} | {"sdr+mib", "mib-ewf", "dkd-m", "star-m", "joint", "idrnet"} | ELSEWHERE),
            ("dataset", {*DATASETS}),
            ("setting", {"overlapped", "disjoint", "partitioned", "sequential", ""}),
            ("inference", {"single", "flip", "ms+flip"}),
            ("background", {"yes", "no", ""}),
            ("task", {"miou", "pq"}),
            ("policy", {"mib", "plop", "ssul", ""}),
            ("test", {"crop 512", "whole", ""}),
            ("certainty", {"published", "quoted", "rerun", "log", "memory"}),
        ],
    )
    def test_every_column_speaks_the_language_of_recipes(self, column, allowed):
        assert {getattr(row, column) for row in published_rows()} <= allowed

    def test_every_row_has_a_number_and_a_source(self):
        for row in published_rows():
            assert row.source
            assert any(getattr(row, key) is not None for key in FIGURES), row
            assert all(0 <= value <= 100 for key in FIGURES if (value := getattr(row, key)) is not None), row
            assert 0 < row.ratio <= 1

    def test_panoptic_quality_is_of_data_with_objects_and_nothing_else(self):
        assert all((row.task == "pq") == DATASETS[row.dataset].has_instances for row in published_rows())

    def test_one_step_has_no_setting_and_several_have_one(self):
        assert all((row.setting == "") == (row.method in ("joint", "idrnet")) for row in published_rows())


class TestRowsOfARecipe:
    def test_are_of_its_method_split_and_setting(self):
        found = rows("voc/plop_15-1_overlapped")
        assert {(row.method, row.dataset, row.split, row.setting) for row in found} == {
            ("plop", "voc", "15-1", "overlapped")
        }
        assert [row.all for row in found] == [54.64, 55.19]
        assert [row.all for row in rows("voc/plop_15-1_overlapped", "scenario.setting=disjoint")] == [46.48]

    def test_are_of_its_share_of_the_data(self):
        assert [row.all for row in rows("voc/plop_15-1_overlapped", "scenario.ratio=0.25")] == [48.13]

    @pytest.mark.parametrize(
        "override",
        [
            "scenario.order=b",
            "scenario.lists=lists",
            "scenario.domains=[here]",
            "scenario={by: domain, split: 15-1}",
            "scenario.memory={size: 100}",
            "scenario.ratio=0.3",
            "scenario.split=10-5-5",
        ],
    )
    def test_are_none_where_no_row_is_about_it(self, override):
        assert rows("voc/plop_15-1_overlapped", override) == []

    def test_of_the_joint_bound_are_those_of_the_split_it_is_scored_as(self):
        offline = ("scenario.split=offline", "method.name=finetune")
        assert [row.old for row in rows("voc/plop_15-1_overlapped", *offline, "scenario.scored_as=15-1")] == [79.1]
        assert [(row.old, row.all) for row in rows("voc/plop_15-1_overlapped", *offline)] == [(None, 77.4)]

    @pytest.mark.parametrize(("domains", "count"), [("[potsdam]", 1), ("null", 1), ("[potsdam, vaihingen]", 0)])
    def test_of_isprs_are_about_potsdam(self, domains, count):
        isprs = ("data.dataset=isprs", "scenario.split=4-1", f"scenario.domains={domains}")
        assert len(rows("voc/plop_15-1_overlapped", *isprs)) == count

    @pytest.mark.parametrize(("background", "found"), [("false", [63.82, 64.5]), ("true", [])])
    def test_of_pascal_context_are_about_its_59_classes(self, background, found):
        network = ("network={backbone: swin_large, head: upernet, idrnet: {}}", "method.name=finetune")
        data = ("data.dataset=pascal-context", f"data.options.background={background}", "scenario.split=offline")
        assert [row.all for row in rows("voc/plop_15-1_overlapped", *network, *data)] == found

    @pytest.mark.parametrize(
        ("network", "found"),
        [
            ("{backbone: resnet50, head: fcn, output_stride: 8, idrnet: {}}", [43.61]),
            ("{backbone: swin_large, head: upernet, idrnet: {}}", [53.97, 54.68]),
            ("{backbone: resnet50, head: fcn, output_stride: 16, idrnet: {}}", []),
            ("{backbone: resnet50, head: pspnet, output_stride: 8}", [42.64]),
            ("{backbone: resnet101, head: deeplabv3-mib}", [38.9]),
        ],
    )
    def test_of_one_step_are_those_of_its_network_where_the_table_compares_networks(self, network, found):
        static = ("data.dataset=ade20k", "scenario.split=offline", "method.name=finetune", f"network={network}")
        assert [row.all for row in rows("voc/plop_15-1_overlapped", *static)] == found


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([], "plop"),
        (["method.name=sdr"], "sdr+mib"),
        (["method={name: sdr, 'on': alone}"], "sdr"),
        (["method.name=finetune"], "finetune"),
        (["method.name=finetune", "scenario.split=offline"], "joint"),
        (["method.name=finetune", "scenario.split=offline", "network.head=fcn", "network.idrnet={}"], "idrnet"),
        (["method.name=ssul", "scenario.memory={size: 100}"], "ssul-m"),
    ],
)
def test_methods_are_called_as_in_the_table(overrides, key):
    assert method_key(read_recipe("voc/plop_15-1_overlapped", overrides)) == key
