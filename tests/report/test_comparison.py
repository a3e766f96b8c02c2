"""A run beside published numbers: like is compared with like, and what is not alike is said."""

from dataclasses import replace

import pytest

from contseg.recipes.build import start_run
from contseg.recipes.published import PublishedRow, published_rows
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe
from contseg.report.comparison import (
    comparability,
    compare,
    compare_run,
    other_changes,
    protocol_changes,
    recorded_recipe,
    warnings_for,
)

NAME = "voc/plop_15-1_overlapped"
WEIGHTS = "backbone_weights=resnet101.pth"
SUMMARY = {
    "old": 60.0,
    "new": 20.0,
    "all": 50.0,
    "old_with_background": 65.0,
    "all_with_background": 55.0,
}


def changed(*overrides: str) -> Recipe:
    return read_recipe(NAME, [WEIGHTS, *overrides])


def published(method: str = "plop", setting: str = "overlapped", split: str = "15-1", **wanted: str) -> PublishedRow:
    """The first row that is so."""
    wanted |= {"method": method, "setting": setting, "split": split}
    return next(row for row in published_rows() if all(getattr(row, key) == value for key, value in wanted.items()))


class TestChanges:
    @pytest.mark.parametrize(
        ("override", "key"),
        [
            ("data.test_crop=null", "data.test_crop"),
            ("data.options={year: 2007}", "data.options.year"),
            ("scenario.split=15-5", "scenario.split"),
            ("scenario.setting=disjoint", "scenario.setting"),
            ("scenario.policy=mib", "scenario.policy"),
            ("scenario.memory={size: 9}", "scenario.memory.size"),
            ("scenario.validation=0.2", "scenario.validation"),
            ("evaluation.flip=true", "evaluation.flip"),
            ("evaluation.scales=[1.0, 2.0]", "evaluation.scales"),
        ],
    )
    def test_of_what_is_learned_when_and_how_it_is_measured_are_the_protocol_s(self, override, key):
        assert key in protocol_changes(changed(override))
        assert other_changes(changed(override)) == {}

    @pytest.mark.parametrize(
        ("override", "key"),
        [
            ("training.lr=0.5", "training.lr"),
            ("training.batch=8", "training.batch"),
            ("method.pod=0.5", "method.pod"),
            ("network.backbone=resnet50", "network.backbone.name"),
            ("data.crop=256", "data.crop"),
            ("data.flip=0", "data.flip"),
            ("start_from=somewhere", "start_from"),
        ],
    )
    def test_of_the_rest_that_matters_to_a_number_are_others(self, override, key):
        assert key in other_changes(changed(override))
        assert protocol_changes(changed(override)) == {}

    @pytest.mark.parametrize(
        "override",
        [
            "name=mine",
            "note=mine",
            "data.path=/here",
            "training.devices=4",
            "training.workers=9",
            "training.seed=7",
            "training.compile=true",
            "evaluation.windows=1",
            "scenario.seed=3",
            WEIGHTS,
        ],
    )
    def test_of_names_places_machines_and_unused_seeds_are_none(self, override):
        assert (protocol_changes(changed(override)), other_changes(changed(override))) == ({}, {})

    def test_of_a_seed_that_chooses_images_count(self):
        recipe = changed("scenario.validation=0.2", "scenario.seed=3")
        assert protocol_changes(recipe)["scenario.seed"] == (0, 3)

    def test_of_saliency_maps_are_no_change_of_the_protocol(self):
        recipe = read_recipe("digits/ssul_5-1", ["scenario.saliency=maps"])
        assert (protocol_changes(recipe), other_changes(recipe)) == ({}, {"scenario.saliency": (None, "maps")})

    def test_of_a_recipe_that_comes_from_no_packaged_one_are_none(self):
        recipe = changed("scenario.setting=disjoint")
        for base in (None, "voc/no-longer-there"):
            assert protocol_changes(recipe.model_copy(update={"based_on": base})) == {}

    def test_are_known_in_the_folder_of_a_run(self, tmp_path):
        run = start_run(changed("scenario.setting=disjoint"), tmp_path / "run")
        assert protocol_changes(recorded_recipe(run)) == {"scenario.setting": ("overlapped", "disjoint")}


class TestComparability:
    def test_a_packaged_recipe_is_comparable(self):
        assert comparability(read_recipe(NAME)) == []

    def test_training_longer_is_no_other_protocol(self):
        assert comparability(changed("training.epochs=99")) == []

    def test_every_change_of_the_protocol_is_told_with_both_values(self):
        recipe = changed("scenario.setting=disjoint", "data.test_crop=null")
        assert comparability(recipe) == ["data.test_crop was 512, is none", "scenario.setting was overlapped, is disjoint"]

    def test_a_share_of_the_data_is_a_change_unless_numbers_are_published_for_it(self):
        assert comparability(changed("scenario.ratio=0.5")) == []
        assert comparability(changed("scenario.ratio=0.4")) == ["scenario.ratio was 1.0, is 0.4"]

    def test_where_nothing_was_published_there_is_nothing_to_say(self):
        assert comparability(read_recipe("digits/plop_5-1", ["scenario.split=5-5"])) == []


class TestWarnings:
    def test_are_none_where_all_is_as_published(self):
        assert warnings_for(changed(), published()) == []

    @pytest.mark.parametrize(
        ("overrides", "row", "told"),
        [
            ((), {"method": "mib", "policy": "mib"}, "the label policy is plop; published: mib"),
            ((), {"setting": "disjoint"}, "the setting is overlapped; published: disjoint"),
            (("data.test_crop=null",), {}, "whole images are scored; published: crop 512"),
            ((), {"method": "lag", "policy": "ssul"}, "crop 512 is scored; published: whole"),
            (("evaluation.flip=true",), {}, "inference is flip; published: single"),
            (("evaluation.scales=[0.5, 1.0]",), {}, "inference is ms; published: single"),
            (("evaluation.scales=[0.5, 1.0]", "evaluation.flip=true"), {}, "inference is ms+flip; published: single"),
            (("scenario.split=15-5",), {"split": "15-5"}, "the recipe was changed: scenario.split was 15-1, is 15-5"),
            (
                ("scenario.ignore_test_background=true",),
                {},
                "the published mean counts background, which this run does not score (scenario.ignore_test_background)",
            ),
        ],
    )
    def test_of_another_protocol_make_two_numbers_incomparable(self, overrides, row, told):
        recipe, row = changed(*overrides), published(**row)
        assert told in warnings_for(recipe, row)
        found = {one.row: one for one in compare(recipe, SUMMARY)}
        if row in found:
            assert not found[row].comparable
            assert told in found[row].warnings

    @pytest.mark.parametrize(
        ("overrides", "inference"),
        [
            ((), "single"),
            (("evaluation.flip=true",), "flip"),
            (("evaluation.flip=true", "evaluation.scales=[0.5]"), "ms+flip"),
        ],
    )
    def test_of_how_images_are_seen_are_none_where_they_were_seen_alike(self, overrides, inference):
        row = published("idrnet", "", "offline", dataset="lip", network="uper_swin-large", inference=inference)
        assert not [text for text in warnings_for(changed(*overrides), row) if "are seen" in text]

    @pytest.mark.parametrize(
        ("overrides", "told"),
        [
            (("backbone_weights=null",), "the backbone was initialised at random, the published one with ImageNet weights"),
            (("training.lr=0.5",), "the recipe was also changed outside the protocol: training.lr was 0.01, is 0.5"),
            (("training.lr=0.5", "training.clip=1"), "training.clip was none, is 1.0, training.lr was 0.01, is 0.5"),
            (("based_on=voc/gone",), "the recipe is not based on a packaged one"),
        ],
    )
    def test_of_the_rest_leave_them_comparable(self, overrides, told):
        (first, *_) = compare(changed(*overrides), SUMMARY)
        assert any(told in text for text in first.warnings)
        assert first.comparable

    def test_tell_where_background_is_not_known_to_count(self):
        recipe = read_recipe("voc/plop_15-1_overlapped", [WEIGHTS])
        row = replace(published(), background="")
        (told,) = (text for text in warnings_for(recipe, row) if "background" in text)
        assert told == "unknown whether the published mean counts background; that of the run does not"

    def test_tell_that_masks_were_published_with_another_network(self):
        row = published("simcis", split="100-50", task="miou")
        told = "published with Mask2Former; the network of this run is deeplabv3-mib_resnet101-d16"
        assert told in warnings_for(changed(), row)

    def test_compare_panoptic_quality_with_panoptic_quality(self, monkeypatch):
        row = published("plop", split="100-50", task="pq")
        monkeypatch.setattr("contseg.report.comparison.published_for", lambda recipe: [row])
        (unmeasured,) = compare(changed(), SUMMARY)
        assert set(unmeasured.run.values()) == set(unmeasured.delta.values()) == {None}
        (measured,) = compare(changed(), SUMMARY | {"pq": {"old": 42.0, "new": None, "all": 30.0}})
        assert measured.delta == {"old": -0.4, "new": None, "all": -6.2}

    def test_tell_that_lists_drawn_once_cannot_be_drawn_again(self):
        row = published("mib", "partitioned", "100-50")
        assert any("drawn once" in text for text in warnings_for(changed("scenario.setting=partitioned"), row))

    def test_tell_that_isprs_was_published_on_potsdam(self):
        row = published("idec", split="4-1")
        assert any("Vaihingen" in text for text in warnings_for(changed(), row))
        assert not any("Vaihingen" in text for text in warnings_for(changed("scenario.domains=[potsdam]"), row))


class TestDistance:
    def test_is_that_of_means_that_count_background_alike(self):
        recipe = changed("method.name=mib", "method.distillation=10")
        found = {one.row.background: one for one in compare(recipe, SUMMARY) if one.row.old is not None}
        assert found["yes"].run == {"old": 65.0, "new": 20.0, "all": 55.0}
        assert found["no"].run == {"old": 60.0, "new": 20.0, "all": 50.0}
        assert found["no"].row.old == 35.1
        assert found["no"].delta == {"old": 24.9, "new": 6.5, "all": 20.3}

    def test_is_unknown_where_one_of_the_two_is(self):
        recipe = changed("scenario.split=offline", "method.name=finetune")
        (one,) = compare(recipe, SUMMARY | {"new": None})
        assert one.delta == {"old": None, "new": None, "all": pytest.approx(50.0 - 77.4)}
        assert one.run["new"] is None

    def test_nothing_stands_beside_a_run_that_nobody_published(self):
        assert compare(read_recipe("digits/plop_5-1"), SUMMARY) == []


class TestRuns:
    def test_that_are_not_finished_are_not_compared(self, tmp_path):
        run = start_run(changed(), tmp_path / "run")
        assert compare_run(run) == []
        run.write_text("summary.json", '{"old": 1, "new": 1, "all": 1, "old_with_background": 2, "all_with_background": 2}')
        assert [one.run["all"] for one in compare_run(run)] == [2, 2]

    def test_of_a_method_that_is_not_registered_here_have_no_published_numbers(self, tmp_path):
        run = start_run(changed(), tmp_path / "run")
        run.write_text("summary.json", '{"old": 1, "new": 1, "all": 1, "old_with_background": 2, "all_with_background": 2}')
        text = (run.folder / "recipe.yaml").read_text()
        run.write_text("recipe.yaml", text.replace("name: plop", "name: somebody-s-own"))
        assert recorded_recipe(run).method["name"] == "somebody-s-own"
        assert compare_run(run) == []
