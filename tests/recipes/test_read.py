"""Recipes: YAML 1.2, shared parts, overrides."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contseg.differences import differences
from contseg.errors import ContsegError
from contseg.recipes.build import resumed_recipe, start_run
from contseg.recipes.read import parse_recipe, read_recipe, recipe_names, to_yaml
from tests.conftest import TINY

NAME = "digits/plop_5-1"
PRINTABLE = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"]) | st.just("\n"))


@pytest.fixture
def write(tmp_path):
    """Writes a recipe file: `write(text)` returns its path."""

    def writing(text: str, name: str = "recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return writing


class TestPackagedRecipes:
    @pytest.mark.parametrize("name", recipe_names())
    def test_each_reads_and_says_its_name(self, name):
        assert read_recipe(name).name == name

    @pytest.mark.parametrize("name", recipe_names())
    def test_each_is_the_same_after_writing_and_reading(self, name, write):
        recipe = read_recipe(name)
        assert read_recipe(write(to_yaml(recipe))) == recipe

    def test_parts_are_no_recipes(self):
        assert recipe_names()
        assert not [name for name in recipe_names() if name.startswith("parts")]

    def test_the_nearest_name_is_suggested(self):
        with pytest.raises(
            ContsegError, match=r"recipe 'digits/plop_51': not found; did you mean 'digits/plop_5-1' or 'digits/"
        ):
            read_recipe("digits/plop_51")

    def test_a_file_that_is_not_there_is_said_to_be_a_file(self, tmp_path):
        with pytest.raises(ContsegError, match=r"nothing\.yaml: recipe file not found"):
            read_recipe(tmp_path / "nothing.yaml")


class TestWriting:
    @settings(deadline=None, max_examples=60)
    @given(note=PRINTABLE, order=st.sampled_from(["natural", "seed:3", [1, "two", 3]]))
    def test_any_printable_text_survives(self, tmp_path_factory, note, order):
        recipe = parse_recipe(
            {"name": "x", "note": note, "data": {"dataset": "digits"}, "scenario": {"order": order}}, "here"
        )
        path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
        path.write_text(to_yaml(recipe), encoding="utf-8")
        assert read_recipe(path) == recipe

    @pytest.mark.parametrize(
        "word", ["no", "on", "null", "1e-4", "007", "5-1", "~", " x ", "a: b", "#", "yes\nno", "\U0001f600" * 9 + " 0 0"]
    )
    def test_words_that_look_like_something_else_stay_words(self, write, word):
        recipe = read_recipe(NAME).model_copy(update={"note": word})
        assert read_recipe(write(to_yaml(recipe))).note == word

    def test_it_is_complete(self):
        """Every value is written, so that a later change of a default does not change an old run."""
        text = to_yaml(read_recipe(NAME))
        for key in ("weight_decay:", "slope:", "ignore_test_background:", "pod_logits:", "variant:", "flip:"):
            assert key in text


class TestValues:
    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            ("training.lr=1e-4", 1e-4),  # a word in YAML 1.1
            ("training.lr=1", 1.0),
            ("training.epochs=[30, 10]", [30, 10]),
            ("training.channels_last=false", False),
            ("note=no", "no"),  # false in YAML 1.1
            ("note=1-1", "1-1"),
            ("scenario.split=10-5-5", "10-5-5"),
            ("training.precision=32", "32"),  # as people write it
            ("training.precision='32'", "32"),
            ("network.mean=[0, 0.5, 1]", (0.0, 0.5, 1.0)),
            ("data.test_crop=null", None),
            ("data.test_crop=", None),
            ("data.jitter.hue=0", 0.0),
            ("data.crop=[512, 1024]", [512, 1024]),
            ("data.scale=[1, 2]", [1.0, 2.0]),
            ("data.resize=[2048, 512]", [2048, 512]),
        ],
    )
    def test_are_read_as_meant(self, override, expected):
        found = read_recipe(NAME, [override])
        for part in override.split("=")[0].split("."):
            found = getattr(found, part)
        assert found == expected
        assert type(found) is type(expected)

    def test_a_later_override_wins(self):
        assert read_recipe(NAME, ["training.lr=1", "training.lr=2"]).training.lr == 2

    def test_a_recipe_cannot_be_changed(self):
        with pytest.raises(ValidationError):
            read_recipe(NAME).training.lr = 3


class TestParts:
    def test_a_recipe_lies_over_its_parts_key_by_key(self, write):
        write("data: {dataset: digits, crop: 64, flip: 0.25}\ntraining: {lr: 1}\nname: one", "one.yaml")
        write("data: {crop: 96}\ntraining: {batch: 2}", "two.yaml")
        path = write("extends: [one, two]\nname: mine\ntraining: {batch: 6}")
        recipe = read_recipe(path)
        assert (recipe.data.crop, recipe.data.flip) == (96, 0.25)
        assert (recipe.training.lr, recipe.training.batch) == (1.0, 6)
        assert recipe.name == "mine"

    def test_parts_have_parts(self, write):
        write("data: {dataset: digits}\nname: deep", "deep.yaml")
        write("extends: deep\ntraining: {lr: 2}", "middle.yaml")
        assert read_recipe(write("extends: middle")).data.dataset == "digits"

    def test_parts_and_recipes_of_the_package_may_be_extended_from_anywhere(self, write):
        recipe = read_recipe(write(f"extends: {NAME}\nname: mine\ntraining: {{lr: 0.125}}"))
        assert recipe.training.lr == 0.125
        assert {**recipe.model_dump(), "name": "", "training": 0} == {
            **read_recipe(NAME).model_dump(), "name": "", "training": 0,
        }  # fmt: skip

    def test_a_list_replaces_a_list(self, write):
        assert read_recipe(write(f"extends: {NAME}\ntraining: {{epochs: [7]}}")).training.epochs == [7]

    def test_a_part_that_is_not_there_is_named(self, write):
        with pytest.raises(ContsegError, match="'nowhere': not found"):
            read_recipe(write("extends: nowhere\nname: x"))


class TestMethods:
    def test_hyper_parameters_are_completed(self):
        assert read_recipe(NAME, ["method.pod=0.5"]).method == {
            "name": "plop", "pod": 0.5, "pod_logits": 0.0005, "variant": "paper", "bins": 1000, "floor": 0.001,
        }  # fmt: skip

    def test_another_method_takes_nothing_from_the_one_before_it(self):
        recipe = read_recipe(NAME, ["method.pod=0.5", "method.name=mib"])
        assert recipe.method == {"name": "mib", "distillation": 10.0}

    def test_the_same_method_named_again_keeps_its_hyper_parameters(self):
        assert read_recipe(NAME, ["method.pod=0.5", "method.name=plop"]).method["pod"] == 0.5

    def test_the_same_holds_in_a_file(self, write):
        write(f"extends: {NAME}\nmethod: {{pod: 0.5}}", "with_pod.yaml")
        assert read_recipe(write("extends: with_pod\nmethod: {bins: 50}")).method["pod"] == 0.5
        assert "pod" not in read_recipe(write("extends: with_pod\nmethod: {name: mib}")).method


class TestNetworks:
    """Keys of a backbone that another one has too are kept, but not arguments for the constructor of a library."""

    def test_another_kind_of_backbone_takes_no_options(self):
        backbone = read_recipe("globe/joint", ["network={backbone: {name: dinov2_reg_tiny, patch: 16}}"]).network.backbone
        assert (backbone.options, backbone.freeze) == ({}, "all")

    @pytest.mark.parametrize(
        ("recipe", "stem", "other", "own"),
        [
            ("digits/comformer_5-1", 3, "resnet18", "plain"),
            ("ade20k/idrnet_deeplabv3_resnet50-d8", "deep", "dinov2_small", None),
        ],
    )
    def test_a_stem_is_of_one_kind_of_backbone(self, recipe, stem, other, own):
        assert read_recipe(recipe).network.backbone.stem == stem
        assert read_recipe(recipe, [f"network={{backbone: {other}, head: fcn}}"]).network.backbone.stem == own

    def test_what_a_head_needs_is_said_whatever_the_stem_was(self):
        with pytest.raises(ContsegError, match="needs a plain vision transformer"):
            read_recipe("digits/comformer_5-1", ["network.backbone=resnet18"])

    def test_a_backbone_of_the_same_kind_does(self):
        backbone = read_recipe("globe/joint", ["network={backbone: {name: mobilenetv3_large}}"]).network.backbone
        assert (backbone.options, backbone.freeze) == ({"output_stride": 16}, "all")


class TestDifferences:
    def test_only_what_differs_is_told_with_both_values(self):
        one = read_recipe(NAME)
        other = read_recipe(NAME, ["training.lr=0.5", "scenario.split=2-2-6", "training.lr_factors.head=2"])
        found = differences(one.model_dump(), other.model_dump())
        assert found["scenario.split"] == ("5-1", "2-2-6")
        assert found["training.lr"] == (one.training.lr, 0.5)
        assert {key for key in found if not key.startswith("training.lr_factors")} == {"scenario.split", "training.lr"}
        assert differences(one.model_dump(), one.model_dump()) == {}


class TestResuming:
    @pytest.fixture
    def folder(self, tmp_path):
        start_run(read_recipe(NAME, TINY), tmp_path / "run")
        return tmp_path / "run"

    def test_a_run_has_its_own_recipe(self, folder):
        assert resumed_recipe(folder) == read_recipe(NAME, TINY)

    def test_machines_name_and_the_place_of_the_data_may_change(self, folder):
        changes = ["training.devices=2", "training.workers=3", "name=other", "note=hm", "data.path=/elsewhere"]
        wanted = read_recipe(NAME, [*TINY, *changes])
        assert resumed_recipe(folder, wanted) == wanted

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ("training.lr=0.5", r"training\.lr was 0\.1, is 0\.5"),
            ("method.variant=released", r"method\.variant was paper, is released"),
            ("scenario.split=5-5", r"scenario\.split was 5-1, is 5-5"),
            ("training.seed=3", r"training\.seed was 42, is 3"),
        ],
    )
    def test_what_is_learned_may_not(self, folder, change, told):
        with pytest.raises(
            ContsegError,
            match=told + "; resume without them, start another run with --out, or use --accept-changes",
        ):
            resumed_recipe(folder, read_recipe(NAME, [*TINY, change]))

    def test_several_changes_are_all_named(self, folder):
        with pytest.raises(
            ContsegError, match=r"data\.flip was 0\.0, is 0\.4, training\.lr was 0\.1, is 1\.0, training\.seed was 42, is 1;"
        ):
            resumed_recipe(folder, read_recipe(NAME, [*TINY, "training.lr=1", "training.seed=1", "data.flip=0.4"]))

    def test_a_folder_that_holds_no_run_is_said_so(self, tmp_path):
        with pytest.raises(ContsegError, match=r"contains no run \(recipe\.yaml is missing\)"):
            resumed_recipe(tmp_path)
