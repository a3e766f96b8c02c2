"""The field's other protocols: partitions, lists, limited data, domains, replay memory, and the policy of SSUL."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from contseg.data.classes import IGNORE
from contseg.data.presence import Presence
from contseg.errors import ContsegError
from contseg.scenarios.domains import divide_pool
from contseg.scenarios.memory import Exemplar, select_exemplars
from contseg.scenarios.options import MemoryOptions, ScenarioOptions
from contseg.scenarios.plan import make_plan
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.selection import limit, partition
from tests.scenarios.towns import TABLE, Towns, cities

QUICK = settings(max_examples=50, deadline=None)

ZOO = {
    "a": {1}, "b": {1, 2}, "c": {2, 3}, "d": {3}, "e": {4}, "f": {1, 4}, "g": {1}, "h": {2}, "i": {0}, "j": {3, 4},
}  # fmt: skip
LAST = {"x": {1, 2}, "y": {3, 4}, "z": {0}}


@pytest.fixture
def zoo(tmp_path):
    """Ten training images of four classes."""
    return Towns(tmp_path, ZOO, LAST)


def make(dataset, split="2-1", **options) -> Scenario:
    return Scenario(dataset, ScenarioOptions(split=split, **options))


class TestPartitioned:
    @QUICK
    @given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=12), st.permutations([1, 2, 3, 4]))
    def test_every_image_with_a_class_serves_exactly_one_step_and_holds_a_class_of_it(self, holding, order):
        table = Presence(tuple(map(str, range(len(holding)))), (0, 1, 2, 3, 4), np.array(holding, int))
        steps = [(0, *order[:2]), order[2:3], order[3:]]
        parts = partition(table, steps)
        assert sorted(np.concatenate(parts)) == np.flatnonzero(table.contains([1, 2, 3, 4])).tolist()
        for part, ids in zip(parts, steps, strict=True):
            assert table.contains(set(ids) - {0})[part].all()
            assert part.tolist() == sorted(part)

    def test_a_rare_class_gets_its_image_and_then_the_one_that_is_short_of_images(self):
        holding = [[0, 1, 0]] * 3 + [[0, 1, 1]] * 2 + [[0, 1, 0]] * 3
        parts = partition(Presence(tuple("abcdefgh"), (0, 1, 2), np.array(holding)), [(0, 1), (2,)])
        # at d: 120 (1 - 3/8) + 10/8 for class 1, 120 + 10/2 for class 2; at e: the same against 120 (1 - 1/2) + 10/2
        assert [part.tolist() for part in parts] == [[0, 1, 2, 4, 5, 6, 7], [3]]

    def test_labels_name_the_classes_of_the_step_only(self, zoo):
        step = make(zoo, "1-1", setting="partitioned")[3]
        assert step.train.lookup[[0, 1, 2, 3, 4]].tolist() == [0, 0, 0, 0, 4]


class TestLists:
    def write(self, folder, *steps):
        folder.mkdir()
        for number, names in enumerate(steps):
            if isinstance(names, np.ndarray):
                np.save(folder / f"train-{number}.npy", names)
            else:
                (folder / f"train-{number}.txt").write_text("\n".join(names))
        return str(folder)

    def test_each_step_has_the_images_of_its_list_in_its_order(self, zoo, tmp_path):
        lists = self.write(tmp_path / "lists", ["g", "a"], ["c"], np.array([4, 9]))
        scenario = make(zoo, lists=lists)
        assert [step.train.names for step in scenario] == [("g", "a"), ("c",), ("e", "j")]
        assert make_plan(scenario).setting == "lists"

    @pytest.mark.parametrize(
        ("steps", "problem"),
        [
            ((["a"], ["nobody"], ["e"]), r"train-1\.txt: names 1 image not in the training list, first 'nobody'"),
            ((["a"], ["c"]), r"train-2\.txt: list of step 2 not found \(nor train-2\.npy\); the split has 3 steps"),
            ((["a"], ["c"], ["e"], ["f"]), r"lists: contains a list for step 3, but the split has only 3 steps"),
            ((["a"], ["c"], np.array([10])), r"train-2\.npy: position 10 is outside the training list of 10 images"),
            ((["a"], ["c"], np.array([0.5])), r"train-2\.npy: contains float64 of shape \(1,\)"),
            ((["a"], ["c"], np.array([], int)), r"train-2\.npy: contains int64 of shape \(0,\)"),
        ],
    )
    def test_a_wrong_list_is_told(self, zoo, tmp_path, steps, problem):
        with pytest.raises(ContsegError, match=problem):
            make(zoo, lists=self.write(tmp_path / "lists", *steps))

    def test_a_list_that_is_no_array_is_told_and_nothing_in_it_is_executed(self, zoo, tmp_path):
        folder = tmp_path / "lists"
        self.write(folder, ["a"], ["c"])
        np.save(folder / "train-2.npy", np.array([{}], object), allow_pickle=True)
        with pytest.raises(ContsegError, match=r"train-2\.npy: cannot be read as an array of numbers"):
            make(zoo, lists=str(folder))


class TestDataRatio:
    def test_later_steps_keep_the_first_of_their_list_and_step_0_everything(self, zoo):
        whole, half = make(zoo), make(zoo, ratio=0.5)
        assert half[0].train.names == whole[0].train.names
        for full, part in zip(whole[1:], half[1:], strict=True):
            assert part.train.names == full.train.names[: round(0.5 * len(full.train))]

    @QUICK
    @given(st.integers(0, 60), st.floats(0.01, 1), st.integers(0, 9))
    def test_a_random_choice_has_the_same_size_and_keeps_the_order(self, count, ratio, seed):
        rows = np.arange(count) * 3
        chosen = limit(rows, ratio, np.random.default_rng(seed))
        assert len(chosen) == len(limit(rows, ratio)) == round(ratio * count)
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        assert set(chosen) <= set(rows)

    def test_a_random_choice_follows_its_seed(self, tmp_path):
        dataset = Towns(tmp_path, {f"{n:03d}": {1 + n % 4} for n in range(80)}, LAST)
        first, again, other = (
            make(dataset, ratio=0.5, ratio_choice="random", seed=seed)[1].train.names for seed in (1, 1, 2)
        )
        assert first == again != other

    def test_a_ratio_that_leaves_nothing_is_told(self, zoo):
        with pytest.raises(ContsegError, match=r"scenario\.ratio: 0\.05 of the 3 images of step 1 are none; increase it"):
            make(zoo, ratio=0.05)


COUNTS = {"aachen": 10, "bremen": 6, "zurich": 5, "lindau": 7}


class TestDomains:
    def test_steps_bring_domains_and_all_classes_are_there_from_the_start(self, tmp_path):
        scenario = make(cities(tmp_path, COUNTS, ("lindau",)), "2-1", by="domain")
        assert [step.domains for step in scenario] == [("aachen", "bremen"), ("zurich",), ("lindau",)]
        assert [step.new_count for step in scenario] == [4, 0, 0]
        for step in scenario:
            assert step.seen_classes == (1, 2, 3, 4)
            assert {name.split("/")[0] for name in step.train.names} == set(step.domains)
            assert step.train.lookup[[0, 1, 2, 3, 4]].tolist() == [IGNORE, 0, 1, 2, 3]
            assert step.train.annotated.all()
        assert scenario.groups == (0, 0, 0, 0)

    def test_training_images_are_the_first_four_fifths_of_the_shuffled_domains(self, tmp_path):
        dataset = cities(tmp_path, COUNTS, ("lindau",))
        step = make(dataset, "2-1", by="domain")[0]
        names = [name for name in dataset.names("train") if name.startswith(("aachen", "bremen"))]
        np.random.RandomState(1).shuffle(names)
        assert list(step.train.names) == names[:12]
        assert list(step.test.names) == names[12:]

    @QUICK
    @given(st.lists(st.sampled_from("abcde"), min_size=5, max_size=60), st.permutations("abcde"))
    def test_no_image_is_both_learned_and_tested_and_tests_only_grow(self, domains, order):
        steps = [order[:2], order[2:3], order[3:]]
        learned, before = set(), set()
        for names, (train, test) in zip(steps, divide_pool(np.array(domains), steps, released=False), strict=True):
            assert {domains[row] for row in train} <= set(names)
            learned |= set(train)
            assert before <= set(test)
            assert not learned & set(test)
            before = set(test)
        assert learned | before == set(range(len(domains)))

    def test_released_tests_on_the_last_fifth_of_another_shuffle_of_all_domains_so_far(self, tmp_path):
        dataset = cities(tmp_path, COUNTS, ("lindau",))
        clean, released = (make(dataset, "2-1", by="domain", variant=variant) for variant in ("paper", "released"))
        assert [step.train.names for step in clean] == [step.train.names for step in released]
        pool = dataset.names("train") + dataset.names("test")
        np.random.RandomState(1).shuffle(pool)
        assert list(released[2].test.names) == pool[int(0.8 * len(pool)) :]

    def test_the_plan_warns_of_the_leak_of_released_and_of_no_other(self, tmp_path):
        dataset = cities(tmp_path, COUNTS, ("lindau",))
        clean, released = (
            make_plan(make(dataset, "2-1", by="domain", variant=variant)) for variant in ("paper", "released")
        )
        assert not clean.warnings
        assert any("trained on" in warning and warning.startswith("step 2 is tested on") for warning in released.warnings)

    def test_official_subsets_are_kept_where_every_domain_has_both(self, tmp_path):
        train = {f"{place}/{n}": {1, 2} for place in ("rgb", "irrg") for n in range(4)}
        test = {f"{place}/{n}": {1, 2} for place in ("rgb", "irrg") for n in range(4, 6)}
        dataset = Towns(tmp_path, train, test, TABLE, ("rgb", "irrg"))
        scenario = make(dataset, "1-1", by="domain", domains=["irrg", "rgb"])
        assert [step.train.names for step in scenario] == [tuple(f"{d}/{n}" for n in range(4)) for d in ("irrg", "rgb")]
        assert scenario[0].test.names == ("irrg/4", "irrg/5")
        assert set(scenario[1].test.names) == set(test)
        with pytest.raises(ContsegError, match=r"scenario\.variant: released is for datasets that are not divided"):
            make(dataset, "1-1", by="domain", variant="released")

    def test_background_is_truth_where_everything_was_annotated(self, tmp_path):
        train = {f"{place}/{n}": {1, 2} for place in ("rgb", "irrg") for n in range(4)}
        for background, expected in (("annotated", True), ("unscored", False)):
            dataset = Towns(tmp_path, train, train, replace(TABLE, background=background), ("rgb", "irrg"))
            assert make(dataset, "1-1", by="domain")[0].train.annotated[0] == expected

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"domains": ["aachen", "paris"]}, r"scenario\.domains: 'paris' is not a domain of towns \(aachen, bremen"),
            ({"domains": ["aachen", "aachen"]}, r"scenario\.domains: 'aachen' occurs more than once"),
            ({"split": "2-3"}, r"scenario\.split: '2-3' does not fit 4 domains"),
        ],
    )
    def test_wrong_domains_are_told(self, tmp_path, options, problem):
        with pytest.raises(ContsegError, match=problem):
            make(cities(tmp_path, COUNTS), **({"split": "2-1", "by": "domain"} | options))

    def test_a_dataset_without_domains_has_none_to_learn(self, zoo):
        with pytest.raises(ContsegError, match=r"scenario\.by: dataset 'towns' has no domains"):
            make(zoo, by="domain")


class TestClassesAndDomains:
    @pytest.fixture
    def sensors(self, tmp_path):
        train = {f"{place}/{n}": {1 + n % 4, 1 + (n + 1) % 4} for place in ("rgb", "irrg") for n in range(8)}
        test = {f"{place}/{n}": {1 + n % 4} for place in ("rgb", "irrg") for n in range(8, 12)}
        return Towns(tmp_path, train, test, replace(TABLE, background="unscored"), ("rgb", "irrg"))

    def test_a_step_names_its_classes_and_its_domain(self, sensors):
        scenario = make(sensors, "2-1", domains=["rgb", "irrg"])
        assert [step.domains for step in scenario] == [("rgb",), ("irrg",), ("irrg",)]
        for step in scenario:
            assert {name.split("/")[0] for name in step.train.names} == set(step.domains)
            assert scenario.train_presence.contains(set(step.new_classes) - {0})[
                scenario.train_presence.rows_of(step.train.names)
            ].all()

    def test_every_domain_so_far_is_tested(self, sensors):
        scenario = make(sensors, "2-1", domains=["rgb", "irrg"])
        assert [len(step.test) for step in scenario] == [2, 6, 8]
        assert {name.split("/")[0] for name in scenario[0].test.names} == {"rgb"}
        assert {name.split("/")[0] for name in scenario[2].test.names} == {"rgb", "irrg"}
        assert scenario.domains == ("rgb", "irrg")

    def test_more_domains_than_steps_are_told(self, sensors):
        with pytest.raises(ContsegError, match=r"scenario\.domains: 2 domains for 1 steps"):
            make(sensors, "offline", domains=["rgb", "irrg"])

    def test_a_domain_without_images_of_the_step_is_told(self, tmp_path):
        dataset = Towns(tmp_path, {"rgb/0": {1, 2}, "irrg/1": {1, 2}}, {"rgb/2": {1}}, TABLE, ("rgb", "irrg"))
        dataset.classes = TABLE.subset([0, 1, 2])
        dataset.domain_of = lambda name: "rgb"
        with pytest.raises(ContsegError, match=r"step 1 \(dog\) has no training image in setting overlapped in domain irrg"):
            make(dataset, "1-1", domains=["rgb", "irrg"])


class TestSelectionAsReleased:
    def test_classes_are_looked_for_one_id_lower(self, zoo):
        zoo.selection_offset = 1
        zoo.counts_background = True
        scenario = make(zoo, "3-1-1")
        assert [step.new_classes for step in scenario] == [(0, 1, 2), (3,), (4,)]
        assert scenario[1].train.names == ("b", "c", "h")  # the images with class 2
        assert scenario[2].train.names == ("c", "d", "j")
        assert scenario.groups == (0, 0, 0, 1, 2)
        assert not scenario.has_background

    def test_a_split_whose_first_step_is_background_alone_cannot_start(self, zoo):
        zoo.counts_background = True
        with pytest.raises(ContsegError, match=r"step 0 \(background\) has no training image"):
            make(zoo, "1-1")


class TestMemory:
    def test_exemplars_are_images_of_earlier_steps_with_the_labels_they_had(self, zoo):
        scenario = make(zoo, memory=MemoryOptions(size=4))
        assert scenario[0].memory == ()
        for step in scenario[1:]:
            assert sum(map(len, step.memory)) == 4
            for part in step.memory:
                source = next(s for s in scenario if np.array_equal(s.train.lookup, part.lookup))
                assert source.index < step.index
                assert set(part.names) <= set(source.train.names)
                marked = {step.seen_classes[position] for position in np.flatnonzero(part.annotated)}
                assert marked == set(source.new_classes) - {0}
                assert len(part.annotated) == step.seen_count

    def test_what_was_kept_may_be_kept_again(self, zoo):
        scenario = make(zoo, "1-1", memory=MemoryOptions(size=6))
        steps = {int(np.flatnonzero(part.annotated)[0]) for part in scenario[3].memory}
        assert steps == {1, 2, 3}

    @QUICK
    @given(
        st.lists(st.frozensets(st.integers(1, 5), min_size=1), min_size=1, max_size=30),
        st.integers(1, 40),
        st.integers(0, 99),
    )
    def test_every_class_has_its_share_or_all_there_is(self, holding, size, seed):
        seen = [Exemplar(str(number), 0, classes) for number, classes in enumerate(holding)]
        chosen = select_exemplars(seen, range(1, 6), size, np.random.RandomState(seed))
        assert len(chosen) == min(size, len(seen))
        assert len({exemplar.name for exemplar in chosen}) == len(chosen)
        for number in range(1, 6):
            there = sum(number in exemplar.classes for exemplar in seen)
            kept = sum(number in exemplar.classes for exemplar in chosen)
            assert kept >= min(there, size // 5)

    def test_the_choice_follows_its_seed(self, tmp_path):
        dataset = Towns(tmp_path, {f"{n:03d}": {1 + n % 4} for n in range(80)}, LAST)
        first, again, other = (
            make(dataset, memory=MemoryOptions(size=5, seed=seed))[1].memory[0].names for seed in (1, 1, 2)
        )
        assert first == again != other

    def test_the_plan_tells_images_and_megabytes_and_its_hash_covers_them(self, zoo):
        without, with_ = make_plan(make(zoo)), make_plan(make(zoo, memory=MemoryOptions(size=4)))
        assert [step.memory_images for step in with_.steps] == [0, 4, 4]
        names = {name for part in make(zoo, memory=MemoryOptions(size=4))[1].memory for name in part.names}
        size = sum(zoo.image_path(name).stat().st_size + zoo.mask_path(name).stat().st_size for name in names)
        assert with_.steps[1].memory_megabytes == pytest.approx(size / 1e6, abs=6e-4)
        assert without.hash != with_.hash

    def test_sequential_exemplars_keep_all_labels_of_their_step(self, zoo):
        scenario = make(zoo, "2-1", setting="sequential", memory=MemoryOptions(size=20))
        parts = {int(part.annotated.sum()): part for part in scenario[2].memory}
        assert set(parts) == {3, 4}  # background and two classes, or three
        assert parts[4].lookup[[0, 1, 2, 3, 4]].tolist() == [0, 1, 2, 3, 4]


class TestSSUL:
    def test_training_labels_count_from_the_unknown_and_tests_do_not(self, zoo):
        step = make(zoo, policy="ssul")[1]
        assert step.has_unknown
        assert step.train.lookup[[0, 1, 2, 3, 4, IGNORE]].tolist() == [0, 0, 0, 4, 0, IGNORE]
        assert step.val.lookup[[0, 1, 2, 3, 4, IGNORE]].tolist() == [4, 4, 4, 3, 4, IGNORE]  # 4: none that is annotated
        assert step.test.lookup[[0, 1, 2, 3, 4, IGNORE]].tolist() == [0, 1, 2, 3, 4, IGNORE]
        assert step.train.annotated.tolist() == [False, False, False, False, True]
        assert step.val.annotated.tolist() == [False, False, False, True]  # labels of val have no unknown

    def test_every_test_image_is_tested(self, zoo):
        assert [len(step.test) for step in make(zoo, policy="ssul")] == [3, 3, 3]

    def test_salient_background_is_unknown_and_the_rest_is_background(self, zoo, tmp_path):
        for name in ZOO:
            salient = np.zeros((8, 8), np.uint8)
            salient[:, :4] = 200
            (tmp_path / "saliency").mkdir(exist_ok=True)
            Image.fromarray(salient).save(tmp_path / "saliency" / f"{name}.png")
        step = make(zoo, policy="ssul", saliency=str(tmp_path / "saliency"))[1]
        image, layers = step.train.read(step.train.names.index("c"))  # classes 2 and 3, a row each
        labels = step.train.labels(layers)
        assert image.shape == (8, 8, 3)
        assert labels[0].tolist() == [0] * 4 + [1] * 4  # class 2 is old, so background here
        assert labels[1].tolist() == [4] * 8
        assert labels[5].tolist() == [0] * 4 + [1] * 4
        ignored = np.full((1, 2), IGNORE, np.uint8)
        assert step.train.labels({"mask": ignored, "saliency": np.array([[0, 9]])}).tolist() == [[IGNORE, IGNORE]]
        assert list(layers) == ["mask", "saliency"]
        assert list(step.test.read(0)[1]) == ["mask"]

    @pytest.mark.parametrize(("size", "problem"), [(None, "c.png: mask not found"), ((4, 4), "saliency map is 4x4 but its")])
    def test_missing_and_missized_saliency_maps_are_told(self, zoo, tmp_path, size, problem):
        (tmp_path / "saliency").mkdir()
        if size:
            Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "saliency" / "c.png")
        step = make(zoo, policy="ssul", saliency=str(tmp_path / "saliency"))[1]
        with pytest.raises(ContsegError, match=problem):
            step.train.read(step.train.names.index("c"))

    def test_a_missing_saliency_folder_is_told(self, zoo):
        with pytest.raises(ContsegError, match="nowhere: folder not found; expected a folder of saliency maps"):
            make(zoo, policy="ssul", saliency="nowhere")


class TestTablesWithoutBackground:
    @pytest.fixture
    def bare(self, tmp_path):
        return Towns(tmp_path, ZOO, LAST, TABLE.without_background())

    @pytest.mark.parametrize("policy", ["mib", "plop"])
    def test_all_classes_at_once_need_none_and_zeros_are_ignored(self, bare, policy):
        (step,) = make(bare, "offline", policy=policy)
        assert step.seen_classes == (1, 2, 3, 4)
        for samples in (step.train, step.val, step.test):
            assert samples.lookup[[0, 1, 2, 3, 4, IGNORE]].tolist() == [IGNORE, 0, 1, 2, 3, IGNORE]
        assert set(step.test.names) == set(LAST)

    def test_steps_of_classes_need_one(self, bare):
        with pytest.raises(ContsegError, match=r"'2-1' needs a background .* set data\.options\.background=true"):
            make(bare)

    @pytest.mark.parametrize("policy", ["mib", "plop", "ssul"])
    def test_an_unscored_background_is_learned_and_never_tested(self, tmp_path, policy):
        dataset = Towns(tmp_path, ZOO, LAST, replace(TABLE, background="unscored"))
        step = make(dataset, policy=policy)[1]
        assert step.train.lookup[0] == 0
        assert step.val.lookup[0] == step.test.lookup[0] == IGNORE
        assert step.test.lookup[4] in (IGNORE, 4)  # a class to come is not counted


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"saliency": "maps"}, "saliency maps need policy ssul"),
        ({"variant": "released", "setting": "sequential"}, "setting: sequential does not allow it"),
        ({"variant": "released", "policy": "ssul"}, "policy: ssul does not allow it"),
        ({"lists": "lists", "setting": "partitioned"}, "lists already assign images to steps"),
        ({"ratio": 0.0}, "greater than 0"),
        ({"memory": {"size": 0}}, "greater than or equal to 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, problem):
    with pytest.raises(ValidationError, match=problem):
        ScenarioOptions.model_validate(options)


def test_the_plan_warns_of_short_steps_and_of_classes_that_no_test_image_holds(tmp_path):
    plan = make_plan(make(Towns(tmp_path, ZOO, {"x": {1, 2, 3}})), batch=4)
    assert "steps 1, 2 have as few as 3 training images; images are repeated to fill a batch of 4" in plan.warnings
    assert "no test image contains owl: left out of every mean" in plan.warnings
    assert not any("trained on" in warning for warning in plan.warnings)


@pytest.mark.parametrize(
    ("background", "train", "test", "expected"),
    [
        ("annotated", ZOO, LAST, [True, True, True, True, True]),
        ("annotated", ZOO, {"y": {3, 4}, "z": {0}}, [True, True, True, True, True]),  # absent in the test set, yet marked
        ("unlabelled", ZOO, LAST, [False, True, True, True, True]),
        ("unlabelled", ZOO, {"y": {3, 4}, "z": {0}}, [False, False, False, True, True]),
        ("annotated", {"d": {3}, "e": {4}}, {"y": {3, 4}}, [False, False, False, True, True]),
    ],
)
def test_test_samples_know_the_classes_that_masks_label(tmp_path, background, train, test, expected):
    dataset = Towns(tmp_path, train, test, replace(TABLE, background=background))
    step = Scenario(dataset, ScenarioOptions(split="2-1"), first_is_known=True)[2]
    assert step.test.annotated.tolist() == expected


@pytest.mark.parametrize("setting", ["overlapped", "disjoint", "sequential"])
@pytest.mark.parametrize(
    ("policy", "kept"), [("plop", [4, 4, 4, 3, 4]), ("ssul", [4, 4, 4, 3, 4]), ("mib", [4, IGNORE, IGNORE, 3, IGNORE])]
)
def test_held_out_labels_say_only_what_background_is_not_where_old_classes_are_not_annotated(zoo, setting, policy, kept):
    first, step, _ = make(zoo, policy=policy, setting=setting)
    assert first.val.lookup[0] == 0
    if setting == "sequential":
        assert step.val.lookup[[0, 1, 2, 3]].tolist() == [0, 1, 2, 3]
    else:
        assert step.val.lookup[[0, 1, 2, 3, 4]].tolist() == kept
