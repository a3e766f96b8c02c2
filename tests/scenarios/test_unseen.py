"""No label of a class that is not annotated reaches a step: neither a class to come nor the outlines of its objects."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset
from contseg.data.segments import CROWD
from contseg.engine.own_loop import training_batches
from contseg.errors import ContsegError
from contseg.recipes.build import make_job
from contseg.recipes.read import read_recipe
from contseg.scenarios.batch import Samples
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.segments import segment_targets
from contseg.scenarios.step import Step

SIDE = 5
CLASSES = 6


class Scenes(SegmentationDataset):
    """Masks of classes 1 to 6 and objects in them, in memory; classes 1, 3 and 5 are things."""

    name = "scenes"
    domains = ("north", "south")

    def __init__(self, root: Path, masks: np.ndarray, numbers: np.ndarray | None, background: str):
        names = [*("abcdef"[:CLASSES])]
        table = ClassTable(("nothing", *names), tuple(range(CLASSES + 1)), ((0, 0, 0),) * (CLASSES + 1), background,
                           things=() if numbers is None else (1, 3, 5))  # fmt: skip
        self.root, self.classes, self.has_instances = root, table, numbers is not None
        self._masks, self._numbers = masks, numbers
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(root / "image.png")

    def names(self, subset):
        return [str(number) for number in range(len(self._masks))]

    def image_path(self, name):
        return self.root / "image.png"

    def mask_path(self, name):
        return self.root / "image.png"

    def domain_of(self, name):
        return self.domains[int(name) % 2]

    def read_labels(self, name):
        layers = {"mask": self._masks[int(name)]}
        if self._numbers is None:
            return layers
        things = np.isin(layers["mask"], self.classes.things)
        return layers | {"instances": np.where(things, self._numbers[int(name)], 0).astype(np.uint16)}

    def read_mask(self, name):
        return self._masks[int(name)]


@st.composite
def scenarios(draw, variants=("paper",), instances=None):
    """Random masks in which each class occurs alone, and every kind of step."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    alone = [np.full((SIDE, SIDE), number) for number in range(1, CLASSES + 1)] * 2
    mixed = [rng.choice([0, IGNORE, *range(1, CLASSES + 1)], (SIDE, SIDE)) for _ in range(draw(st.integers(0, 4)))]
    masks = np.stack([*alone, *mixed]).astype(np.uint8)
    with_objects = draw(st.booleans()) if instances is None else instances
    numbers = rng.choice([1, 2, 3, 7, CROWD], masks.shape) if with_objects else None
    background = draw(st.sampled_from(["annotated", "unlabelled", "unscored"]))
    options = {
        "split": draw(st.sampled_from(["offline", "3-3", "2-1", "4-1-1", "1-2-3"])),
        "setting": draw(st.sampled_from(["overlapped", "disjoint", "partitioned", "sequential"])),
        "policy": draw(st.sampled_from(["mib", "plop", "ssul"])),
        "order": draw(st.permutations(range(1, CLASSES + 1))),
        "memory": draw(st.sampled_from([None, {"size": 6}])),
        "validation": draw(st.sampled_from([0.0, 0.4])),
        "ignore_test_background": draw(st.booleans()),
        "variant": draw(st.sampled_from(variants)),
    }
    if draw(st.booleans()) and options["variant"] == "paper":
        options |= {"by": "domain", "split": "1-1", "setting": "overlapped", "memory": None}
    if options["variant"] == "released":
        options |= {"policy": draw(st.sampled_from(["mib", "plop"])),
                    "setting": draw(st.sampled_from(["overlapped", "disjoint"]))}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        dataset = Scenes(Path(folder), masks, numbers, background)
        return Scenario(dataset, ScenarioOptions.model_validate(options))


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def labelled(step: Step, samples: Samples, dataset: Scenes):
    """The mask, the labels and the visible objects of each sample."""
    for name in samples.names:
        layers = dataset.read_labels(name)
        labels = samples.labels(layers)
        yield layers["mask"], labels, samples.instances(layers, labels)


def hidden(step: Step, samples: Samples) -> set[int]:
    """Labels of no class: ignored, background and unknown, and in held-out samples "none of the annotated"."""
    first = int(step.has_unknown and samples is not step.val) + int(step.table.has_background)
    return {*range(first), IGNORE} | ({step.seen_count} if samples is step.val else set())


@QUICK
@given(scenarios())
def test_no_label_of_a_class_that_is_not_annotated_is_in_any_step(scenario):
    dataset = scenario.dataset
    for step in scenario:
        for samples in (step.train, step.val, *step.memory):
            offset = int(step.has_unknown and samples is not step.val)
            nothing = hidden(step, samples)
            for mask, labels, numbers in labelled(step, samples, dataset):
                for label in {*labels.ravel().tolist()} - nothing:
                    assert label < len(samples.annotated)
                    assert samples.annotated[label], f"label {label} is not annotated"
                    assert {*mask[labels == label].tolist()} == {scenario.order[label - offset]}
                unseen = ~np.isin(mask, step.seen_classes)
                assert {*labels[unseen].ravel().tolist()} <= nothing
                if numbers is not None:
                    shown = numbers > 0
                    assert np.isin(mask[shown], dataset.classes.things).all()
                    assert samples.annotated[labels[shown]].all(), "outlines of objects that labels hide"


@QUICK
@given(scenarios())
def test_targets_are_the_segments_of_annotated_classes(scenario):
    dataset = scenario.dataset
    for step in scenario:
        for samples in (step.train, *step.memory):
            for _, labels, numbers in labelled(step, samples, dataset):
                own = np.zeros(labels.shape, np.int32) if numbers is None else numbers.astype(np.int32)
                instances = None if numbers is None else torch.from_numpy(own)[None]
                annotated = torch.from_numpy(samples.annotated)[None]
                [(classes, masks)] = segment_targets(torch.from_numpy(labels.copy())[None], instances, annotated)
                expected = [
                    (label, (labels == label) & (own == number))
                    for label in np.flatnonzero(samples.annotated).tolist()
                    for number in sorted({*own[labels == label].tolist()} - {CROWD})
                ]
                assert classes.tolist() == [label for label, _ in expected]
                assert masks.shape == (len(expected), SIDE, SIDE)
                assert all((one == region).all() for one, (_, region) in zip(masks.numpy(), expected, strict=True))


@QUICK
@given(scenarios(variants=("released",), instances=False))
def test_the_released_variant_annotates_the_next_class_and_no_other(scenario):
    for step in scenario:
        following = scenario.order[step.seen_count : step.seen_count + 1]
        for samples in (step.train, step.val, *step.memory):
            last = step if samples is step.train else None
            for mask, labels, _ in labelled(step, samples, scenario.dataset):
                leaks = {*mask[labels == step.seen_count].tolist()}
                if last is not None:
                    assert leaks == {*following} & {*mask.ravel().tolist()}
                beyond = {*labels.ravel().tolist()} - {*range(step.seen_count + 1), IGNORE}
                assert not beyond
        assert len(step.train.annotated) == step.seen_count, "it has no output"


@QUICK
@given(scenarios(variants=("released",), instances=False))
def test_targets_of_the_released_variant_are_of_annotated_classes_and_the_next_one(scenario):
    for step in scenario:
        for samples in (step.train, *step.memory):
            own = torch.from_numpy(samples.annotated)[None]
            assert own.shape[1] == step.seen_count
            allowed = {*np.flatnonzero(samples.annotated).tolist()} | ({step.seen_count} if samples is step.train else set())
            for mask, labels, _ in labelled(step, samples, scenario.dataset):
                [(classes, masks)] = segment_targets(torch.from_numpy(labels.copy())[None], None, own, leaked=True)
                assert classes.tolist() == sorted({*labels.ravel().tolist()} & allowed)
                for one, region in zip(classes.tolist(), masks.numpy(), strict=True):
                    assert {*mask[region].tolist()} == {scenario.order[one]}, "nothing but the class is in its mask"


def scene(variant: str, numbers=None, **options) -> Scenario:
    with tempfile.TemporaryDirectory() as folder:
        masks = np.stack([np.full((SIDE, SIDE), number) for number in range(1, CLASSES + 1)]).astype(np.uint8)
        masks[0, 0], masks[0, 1] = 3, 4
        dataset = Scenes(Path(folder), masks, None if numbers is None else np.ones_like(masks), "unlabelled")
        return Scenario(dataset, ScenarioOptions(split="2-1", variant=variant, **options))


class TestLeak:
    @pytest.mark.parametrize(("variant", "expected"), [("paper", [0, 0, 1]), ("released", [3, 0, 1])])
    def test_the_first_class_of_the_next_step_is_a_label_without_an_output(self, variant, expected):
        step = scene(variant)[0]
        assert step.train.lookup[[3, 4, 1]].tolist() == expected
        assert step.train.annotated.tolist() == [False, True, True]
        assert step.test.lookup[3] != 3
        assert len(scene(variant)[-1].train.annotated) == CLASSES + 1

    def test_images_are_still_those_of_the_step(self):
        assert [step.train.names for step in scene("released")] == [step.train.names for step in scene("paper")]

    def test_it_is_a_mask_where_a_method_asks_for_it(self):
        step = scene("released")[0]
        labels = torch.tensor([[[1, 2, 3, 0]]])
        annotated = torch.from_numpy(step.train.annotated)[None]
        for leaked, classes in ((False, [1, 2]), (True, [1, 2, 3])):
            [(found, _)] = segment_targets(labels, None, annotated, leaked)
            assert found.tolist() == classes

    def test_instances_have_none(self):
        with pytest.raises(ContsegError, match=r"scenario\.variant: released annotates .* scenes has instances"):
            scene("released", numbers=1)

    def test_a_method_whose_classes_are_all_known_refuses_it(self, tmp_path):
        recipe = read_recipe("digits/plop_5-1", ["scenario.variant=released", "scenario.policy=plop"])
        with pytest.raises(ContsegError, match=r"scenario\.variant: released also annotates .* method 'plop' has no output"):
            make_job(recipe, tmp_path / "run", new=True)


def test_batches_have_the_objects_of_the_step_cut_like_its_labels(tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.choice([0, 1, 2, 3, 4], (12, SIDE, SIDE)).astype(np.uint8)
    numbers = 1 + np.arange(masks.size).reshape(masks.shape) % 50  # tells every pixel of an image apart
    step = Scenario(Scenes(tmp_path, masks, numbers, "unlabelled"), ScenarioOptions(split="2-4"))[1]
    things = np.array([False, True, False, True, False, True, False])
    for pipeline in ("mib", "ssul", "ssseg", "centre"):
        for batch in training_batches(step, 0, batch=4, crop=8, pipeline=pipeline):
            assert batch.instances.shape == batch.labels.shape
            assert batch.instances.dtype == torch.int32
            labels = batch.labels.numpy()
            shown = batch.instances.numpy() > 0
            assert (shown == np.isin(labels, np.flatnonzero(things & step.train.annotated))).all()
            for name, own, objects in zip(batch.names, labels, batch.instances.numpy(), strict=True):
                at = dict(zip(numbers[int(name)].ravel().tolist(), masks[int(name)].ravel().tolist(), strict=True))
                assert all(at[number] == own[place] for place, number in np.ndenumerate(objects) if number)
            assert batch.rows([1]).instances.shape == (1, *batch.size)
