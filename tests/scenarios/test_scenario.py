"""Which image serves which step with which labels: properties over random datasets."""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset
from contseg.data.datasets.folder import Folder
from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.plan import make_plan
from contseg.scenarios.scenario import Scenario

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SIDE = 4


class Masks(SegmentationDataset):
    """A dataset of given masks; the test set is the training set."""

    name = "masks"

    def __init__(self, root: Path, classes: ClassTable, masks: list[np.ndarray]):
        self.root, self.classes = root, classes
        for number, mask in enumerate(masks):
            Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(self.image_path(str(number)))
            Image.fromarray(mask).save(self.mask_path(str(number)))
        self._names = [str(number) for number in range(len(masks))]

    def names(self, subset):
        return list(self._names)

    def image_path(self, name):
        return self.root / f"{name}.jpg"

    def mask_path(self, name):
        return self.root / f"{name}.png"


@dataclass(frozen=True)
class World:
    """Classes with any ids, in any order, over some steps; masks in which every class occurs alone at least once."""

    ids: tuple[int, ...]
    widths: tuple[int, ...]
    order: tuple[int, ...]
    masks: tuple[bytes, ...]
    background: str

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        alone = [np.full((SIDE, SIDE), number, np.uint16) for number in self.ids[1:]]
        return alone + [np.frombuffer(mask, np.uint16).reshape(SIDE, SIDE) for mask in self.masks]

    def holds(self, row: int, ids) -> bool:
        return bool(np.isin(self.arrays[row], [number for number in ids if number]).any())

    def scenario(self, setting: str, policy: str = "plop", **options) -> Scenario:
        table = ClassTable(tuple(f"c{n}" for n in self.ids), self.ids, ((0, 0, 0),) * len(self.ids), self.background)
        split = "-".join(map(str, self.widths)) if len(self.widths) > 1 else "offline"
        with tempfile.TemporaryDirectory() as folder:
            return Scenario(
                Masks(Path(folder), table, self.arrays),
                ScenarioOptions(split=split, setting=setting, policy=policy, order=list(self.order), **options),
            )


@st.composite
def worlds(draw) -> World:
    numbers = st.integers(1, 400).filter(lambda number: number != IGNORE)
    foreground = draw(st.lists(numbers, min_size=2, max_size=6, unique=True).map(sorted))
    first = draw(st.integers(1, len(foreground)))
    rest = len(foreground) - first
    widths = (first, rest) if rest and draw(st.booleans()) else (first, *[1] * rest)
    values = st.sampled_from([0, IGNORE, *foreground])
    pixels = st.lists(values, min_size=SIDE * SIDE, max_size=SIDE * SIDE).map(lambda p: np.array(p, np.uint16).tobytes())
    sparse = st.lists(values, min_size=1, max_size=2).map(
        lambda few: np.resize(np.array(few, np.uint16), SIDE * SIDE).tobytes()
    )
    return World(
        (0, *foreground),
        widths,
        tuple(draw(st.permutations(foreground))),
        tuple(draw(st.lists(pixels | sparse, max_size=5))),
        draw(st.sampled_from(["annotated", "unlabelled"])),
    )


def rows(samples) -> list[int]:
    return [int(name) for name in samples.names]


@QUICK
@given(worlds())
def test_disjoint_steps_partition_the_images_that_hold_a_class(world):
    used = [row for step in world.scenario("disjoint") for row in rows(step.train)]
    assert sorted(used) == [row for row in range(len(world.arrays)) if world.holds(row, world.ids)]


@QUICK
@given(worlds(), st.sampled_from(["disjoint", "overlapped", "sequential"]))
def test_a_step_uses_the_images_its_setting_says_in_list_order(world, setting):
    for step in world.scenario(setting):
        later = set(world.ids) - set(step.seen_classes)
        expected = [
            row
            for row in range(len(world.arrays))
            if world.holds(row, step.new_classes) and (setting == "overlapped" or not world.holds(row, later))
        ]
        assert rows(step.train) == expected


@QUICK
@given(worlds())
def test_overlapped_contains_disjoint_which_is_sequential(world):
    settings_ = (world.scenario(setting) for setting in ("overlapped", "disjoint", "sequential"))
    for overlapped, disjoint, sequential in zip(*settings_, strict=True):
        assert set(rows(overlapped.train)) >= set(rows(disjoint.train))
        assert rows(disjoint.train) == rows(sequential.train)


@QUICK
@given(worlds(), st.sampled_from(["mib", "plop"]), st.sampled_from(["disjoint", "overlapped", "sequential"]))
def test_no_label_of_an_unseen_class_reaches_training(world, policy, setting):
    for step in world.scenario(setting, policy, validation=0.4):
        allowed = {0, IGNORE} | {step.seen_classes.index(number) for number in step.new_classes}
        if setting == "sequential":
            allowed |= set(range(step.seen_count))
        for samples, others in ((step.train, set()), (step.val, {step.seen_count})):  # "none of those annotated here"
            for row in rows(samples):
                assert set(np.unique(samples.lookup[world.arrays[row]])) <= allowed | others


@QUICK
@given(worlds(), st.sampled_from(["mib", "plop"]), st.sampled_from(["disjoint", "overlapped", "sequential"]))
def test_label_maps_invert_through_seen_classes(world, policy, setting):
    for step in world.scenario(setting, policy):
        for samples, kept in ((step.train, step.new_classes), (step.test, step.seen_classes)):
            for number in kept:
                if number:
                    assert step.seen_classes[samples.lookup[number]] == number


@QUICK
@given(worlds(), st.sampled_from(["disjoint", "overlapped"]))
def test_steps_bring_every_class_once_in_order(world, setting):
    scenario = world.scenario(setting)
    assert [number for step in scenario for number in step.new_classes] == [0, *world.order]
    for before, step in pairwise(scenario):
        assert step.old_classes == before.seen_classes
        assert step.seen_count == step.old_count + step.new_count == len(step.table)
    assert [step.new_count for step in scenario] == [world.widths[0] + 1, *world.widths[1:]]
    assert scenario[-1].table.ids == (0, *world.order)


@QUICK
@given(worlds())
def test_every_step_is_tested_on_the_images_that_hold_a_seen_class(world):
    for step in world.scenario("disjoint"):
        assert rows(step.test) == [row for row in range(len(world.arrays)) if world.holds(row, step.seen_classes)]


@QUICK
@given(worlds(), st.floats(0, 0.49), st.integers(0, 99))
def test_held_out_images_are_a_complete_and_disjoint_part(world, share, seed):
    whole, divided = world.scenario("overlapped"), world.scenario("overlapped", validation=share, seed=seed)
    for all_of_it, step in zip(whole, divided, strict=True):
        train, val = rows(step.train), rows(step.val)
        assert sorted(train + val) == rows(all_of_it.train)
        assert train == sorted(train)
        assert val == sorted(val)
        assert abs(len(val) - share * len(train + val)) <= 1


def test_annotated_says_what_an_annotator_marked(make_folder):
    dataset = Folder(make_folder())
    no, yes = False, True
    expected = {
        ("overlapped", "annotated"): ([no, yes, yes], [no, no, no, yes]),  # a later background may hide anything
        ("sequential", "annotated"): ([yes, yes, yes], [yes, yes, yes, yes]),
        ("sequential", "unlabelled"): ([no, yes, yes], [no, yes, yes, yes]),
    }
    for (setting, background), steps in expected.items():
        dataset.classes = replace(dataset.classes, background=background)
        scenario = Scenario(dataset, ScenarioOptions(split="2-1", setting=setting))
        assert tuple(step.train.annotated.tolist() for step in scenario) == steps


def test_the_same_seed_holds_out_the_same_images(make_folder):
    dataset = Folder(make_folder(count=40))
    first, again, other = (
        Scenario(dataset, ScenarioOptions(split="2-1", validation=0.3, seed=seed))[0].val.names for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("share", [0.6, 0.99])
def test_holding_out_all_images_of_a_step_is_refused(make_folder, share):
    root = make_folder(count=4)
    for number in range(3):  # one training image of each class
        Image.fromarray(np.full((32, 32), number + 1, np.uint8)).save(root / "masks" / f"{number:03d}.png")
    with pytest.raises(ContsegError, match=r"scenario\.validation: .* of the 1 images of step 0 leaves none"):
        Scenario(Folder(root), ScenarioOptions(split="1-1", validation=share))


NEVER = (
    r"step 1 \(violet\) has no training image: the training masks contain the ids 0 \(background\), 1 \(red\), 2 \(green\),"
    r" 3 \(blue\) and never 4 \(violet\); write masks with the ids of the class list"
)


def test_a_step_without_images_is_an_error_that_names_its_classes(make_folder):
    root = make_folder(classes=("background", "red", "green", "blue"))
    (root / "classes.txt").write_text("background\nred\ngreen\nblue\nviolet\n")
    with pytest.raises(ContsegError, match=NEVER):
        Scenario(Folder(root), ScenarioOptions(split="3-1"))


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_share_outside_zero_to_one_is_told(make_folder, share):
    with pytest.raises(ContsegError, match=r"scenario\.validation: .* is not a share"):
        Scenario(Folder(make_folder()), ScenarioOptions(split="2-1", validation=share))


def test_offline_is_one_step_scored_with_the_groups_of_a_split(make_folder):
    dataset = Folder(make_folder())
    joint = Scenario(dataset, ScenarioOptions(split="offline", scored_as="1-1"))
    assert len(joint) == 1
    assert joint.groups == (0, 0, 1, 2)
    assert Scenario(dataset, ScenarioOptions(split="offline")).groups == (0, 0, 0, 0)
    assert make_plan(joint).steps[0].train_images == len(dataset.names("train"))
