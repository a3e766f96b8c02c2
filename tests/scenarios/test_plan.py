"""A plan tells what every step uses; its hash names exactly that."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data.datasets.digits import Digits
from contseg.data.datasets.folder import Folder
from contseg.errors import ContsegError
from contseg.scenarios import plan
from contseg.scenarios.batch import Batch, Samples
from contseg.scenarios.digests import samples_digest
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.plan import make_plan, plan_warnings, published_matches, published_selections
from contseg.scenarios.scenario import Scenario

PLAIN = ScenarioOptions(split="1-1", setting="overlapped", policy="plop")


@pytest.fixture
def dataset(make_folder):
    return Folder(make_folder(count=24))


def hash_of(dataset, **changes) -> str:
    return make_plan(Scenario(dataset, PLAIN.model_copy(update=changes))).hash


def test_the_hash_is_the_same_when_made_again(dataset):
    assert hash_of(dataset) == hash_of(Folder(dataset.root))


@pytest.mark.parametrize(
    "change",
    [
        {"order": ["green", "red", "blue"]},
        {"order": "seed:3"},
        {"policy": "mib"},
        {"setting": "disjoint"},
        {"setting": "sequential"},
        {"split": "2-1"},
        {"split": "offline"},
        {"validation": 0.5},
    ],
    ids=str,
)
def test_the_hash_changes_with_what_is_learned_when(dataset, change):
    assert hash_of(dataset, **change) != hash_of(dataset)


@pytest.mark.parametrize("subset", ["train", "test"])
def test_the_hash_changes_with_the_images_and_their_order(dataset, subset):
    before = hash_of(dataset)
    lines = (dataset.root / f"{subset}.txt").read_text().split()
    for changed in (lines[1:], lines[::-1]):
        (dataset.root / f"{subset}.txt").write_text("\n".join(changed))
        assert hash_of(Folder(dataset.root)) != before


def test_the_hash_changes_when_another_mask_moves_an_image_to_another_step(dataset):
    before = hash_of(dataset)
    Image.fromarray(np.full((32, 32), 3, np.uint8)).save(dataset.root / "masks" / "000.png")
    assert hash_of(dataset) != before


def test_scoring_alone_leaves_the_hash(dataset):
    assert hash_of(dataset, split="offline", scored_as="1-1") == hash_of(dataset, split="offline")


def test_rows_count_images_and_full_size_pixels(dataset):
    scenario = Scenario(dataset, PLAIN)
    made = make_plan(scenario)
    for row, step in zip(made.steps, scenario, strict=True):
        assert (row.train_images, row.val_images, row.test_images) == (len(step.train), len(step.val), len(step.test))
        masks = np.stack([dataset.read(name)[1] for name in step.train.names])
        assert list(row.train_pixels) == [(masks == number).sum() for number in dataset.classes.ids]
    assert [row.new_classes for row in made.steps] == [("background", "red"), ("green",), ("blue",)]


def test_a_plan_is_json(dataset):
    made = make_plan(Scenario(dataset, PLAIN))
    read = json.loads(made.to_json())
    assert read["hash"] == made.hash
    assert read["steps"][2]["new_classes"] == ["blue"]
    assert read["order"] == [0, 1, 2, 3]


def test_a_digest_is_of_names_order_and_map(dataset):
    samples = Scenario(dataset, PLAIN)[0].train
    turned = replace(samples, names=samples.names[::-1])
    other_map = samples.lookup.copy()
    other_map[300] = 1
    remapped = replace(samples, lookup=other_map)
    assert len({samples_digest(each) for each in (samples, turned, remapped)}) == 3


def test_a_published_selection_is_found_by_its_names_in_order(monkeypatch, tmp_path):
    names = ("2007_000032", "2007_000039")
    row = {
        "dataset": "voc",
        "task": "15-1",
        "step": 1,
        "mode": "train",
        "overlap": True,
        "sha1": hashlib.sha1("\n".join(names).encode()).hexdigest(),
    }
    rows = [row, row | {"overlap": False, "step": 2}, row | {"mode": "val"}]
    (tmp_path / "published_selections.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(plan, "files", lambda package: tmp_path)
    published_selections.cache_clear()
    try:
        assert published_matches(names) == ("voc 15-1 step 1 overlapped", "voc 15-1 step 2 disjoint")
        assert published_matches(names[::-1]) == ()
    finally:
        published_selections.cache_clear()


def test_published_selections_of_both_settings_are_there():
    labels = {label for labels in published_selections().values() for label in labels}
    for step in range(6):
        assert {f"voc 15-1 step {step} overlapped", f"voc 15-1 step {step} disjoint"} <= labels


def test_samples_stack_into_a_batch_that_keeps_labels_names_and_annotations(dataset):
    samples = Scenario(dataset, PLAIN)[1].train
    assert isinstance(samples, Samples)
    read = [samples.read(index) for index in range(2)]
    batch = Batch.stack(
        [torch.from_numpy(image.copy()).permute(2, 0, 1) for image, _ in read],
        [samples.labels(layers) for _, layers in read],
        samples.names[:2],
        [samples.annotated] * 2,
    ).to(torch.device("cpu"))
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.labels.dtype == torch.int64
    assert batch.size == (32, 32)
    assert batch.annotated.tolist() == [[False, False, True]] * 2
    relabelled = batch.relabelled(batch.labels + 1, torch.ones(2))
    assert torch.equal(relabelled.labels, batch.labels + 1)
    assert torch.equal(relabelled.images, batch.images)
    moved = relabelled.to(torch.device("meta"))
    tensors = (moved.images, moved.labels, moved.annotated, moved.weights)
    assert [each.device.type for each in tensors] == ["meta"] * 4, "all of a batch moves"


def test_warnings_of_a_plan_need_no_saliency_map_though_its_digests_do(tmp_path):
    options = ScenarioOptions(split="5-1", policy="ssul", saliency=str(tmp_path))
    scenario = Scenario(Digits(train=40, test=10), options)
    with pytest.raises(ContsegError, match="saliency map cannot be read"):
        make_plan(scenario)
    assert any("to fill a batch of 24" in text for text in plan_warnings(scenario, batch=24))
