"""The list of recipes, a recipe in full, and the table of them in the documentation."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks.works_table import with_table, works_table
from contseg.errors import ContsegError
from contseg.recipes.catalogue import catalogue, system_of
from contseg.recipes.describe import comments_of, describe
from contseg.recipes.published import network_key, published_for
from contseg.recipes.read import COMMAND_LINE, is_of_published_data, parse_recipe, read_recipe, recipe_names, resolve

PAGE = Path(__file__).parent.parent.parent / "docs" / "what-works.md"


class TestTheList:
    def test_holds_every_recipe_once(self):
        assert sorted(entry.name for entry in catalogue()) == recipe_names()

    def test_is_cut_by_system_data_set_and_split_together(self):
        names = {entry.name for entry in catalogue("plop", "voc", "15-1")}
        assert names == {
            f"voc/plop_15-1_{setting}{variant}"
            for setting in ("disjoint", "overlapped")
            for variant in ("", "_released", "_vitb")
        }

    def test_puts_long_splits_first(self):
        splits = [entry.split for entry in catalogue("mib", "voc")]
        assert list(dict.fromkeys(splits)) == ["19-1", "15-5", "15-1", "10-1", "5-3"]

    @pytest.mark.parametrize(
        ("cut", "told"),
        [
            ({"system": "plpo"}, r"--system: no recipe has system 'plpo'; did you mean 'plop'\?"),
            ({"dataset": "vco"}, r"--dataset: no recipe has dataset 'vco'; did you mean 'voc'\?"),
            ({"split": "15-2"}, r"--split: no recipe has split '15-2'; did you mean '15-[15]'\?"),
        ],
    )
    def test_names_the_nearest_where_there_is_nothing(self, cut, told):
        with pytest.raises(ContsegError, match=told):
            catalogue(**cut)

    def test_shows_no_number_where_none_was_published(self):
        assert not [entry for entry in catalogue("frozen") if entry.published]


class TestARecipeInFull:
    @pytest.mark.parametrize("name", ["voc/plop_10-1_disjoint", "lip/idrnet_uper_swin-large", "voc/ssul-m_15-1_disjoint"])
    def test_is_yaml_that_reads_as_the_recipe(self, name):
        assert parse_recipe(YAML(typ="safe").load(describe(name)), name) == read_recipe(name)

    def test_says_of_every_value_where_it_comes_from(self):
        lines = describe("voc/plop_15-1_overlapped", ["training.lr=0.5"]).splitlines()
        origin = {line.split(":")[0].strip(): line.partition("  # ")[2] for line in lines if "  # " in line}
        assert origin["split"] == "voc/plop_15-1_overlapped"
        assert lines[lines.index("  pod: 0.01") - 1] == "  # parts/plop-voc: per dataset: 0.001 on ADE20K", "else too long"
        assert origin["lr"] == COMMAND_LINE
        assert origin["clip"] == "default"

    @pytest.mark.parametrize("name", ["voc/plop_15-1_overlapped", "digits/mib_5-1", "ade20k/idrnet_uper_swin-large"])
    def test_fits_80_columns_but_for_values(self, name):
        wide = [line for line in describe(name).splitlines() if len(line) > 80]
        assert not [line for line in wide if "#" in line]

    def test_names_the_parts_from_below(self):
        assert resolve("voc/mib_15-5_disjoint").layers == (
            "parts/voc", "parts/cssegmentation", "parts/cssegmentation-voc", "parts/mib", "voc/mib_15-5_disjoint",
        )  # fmt: skip

    def test_shows_what_was_published_and_says_where_nothing_was(self):
        assert "65.12 / 21.11 / 54.64 (background counted; published" in describe("voc/plop_15-1_overlapped")
        assert "published on this protocol: none in this package" in describe("voc/frozen_15-1_overlapped")

    def test_a_file_of_ones_own_is_shown_too(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("extends: voc/mib_15-5_disjoint\nname: mine\ntraining:\n  lr: 0.5 # bold\n")
        assert f"{path}: bold lr: 0.5" in " ".join(describe(path).replace("#", "").split())
        assert read_recipe(path).based_on == "voc/mib_15-5_disjoint"

    def test_comments_are_found_at_any_depth(self):
        assert comments_of("a:\n  b:\n    c: [1, 2] # deep\nd: x\n") == {"a.b.c": "deep"}


class TestThePageOfWhatWorks:
    def test_has_the_table_that_the_recipes_make(self):
        text = PAGE.read_text(encoding="utf-8")
        assert with_table(text) == text, "run make works-table"

    def test_the_table_names_every_system_and_data_set(self):
        table = works_table()
        for entry in catalogue():
            if is_of_published_data(entry.name):
                assert entry.system in table
                assert entry.dataset in table


def test_a_list_says_of_every_recipe_what_the_whole_recipe_says():
    """A list reads recipes without the defaults of their methods."""
    for entry in catalogue():
        recipe = read_recipe(entry.name)
        assert (entry.system, entry.network) == (system_of(recipe), network_key(recipe)), entry.name
        assert entry.published == tuple(published_for(recipe)), entry.name
