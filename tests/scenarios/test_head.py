"""The first steps of a scenario, with few images."""

import pytest

from contseg.scenarios.options import MemoryOptions, ScenarioOptions
from contseg.scenarios.plan import make_plan
from contseg.scenarios.scenario import Scenario
from tests.scenarios.towns import Towns, cities

OPTIONS = ScenarioOptions(split="2-1-1", memory=MemoryOptions(size=6), validation=0.3)


@pytest.fixture
def scenario(tmp_path):
    whole = {f"a/{number:02d}": {1, 2} if number < 10 else {number % 4 + 1} for number in range(30)}
    return Scenario(Towns(tmp_path, whole, {f"b/{name}": {1, 2, 3, 4} for name in range(5)}), OPTIONS)


def test_steps_keep_what_they_are_and_the_first_of_their_images(scenario):
    short = scenario.head(2, images=4, others=1)
    assert len(short) == 2
    for before, after in zip(scenario, short, strict=False):
        for kept in ("index", "new_classes", "old_classes", "table", "domains", "has_unknown"):
            assert getattr(after, kept) == getattr(before, kept)
        assert after.train.names == before.train.names[:4]
        assert after.val.names == before.val.names[:1]
        assert after.test.names == before.test.names[:1]
        assert [part.names for part in after.memory] == [part.names[:1] for part in before.memory]
        assert (after.train.lookup == before.train.lookup).all()
    assert len(short[1].memory) == 1


def test_classes_order_and_groups_are_those_of_the_whole(scenario):
    short = scenario.head(1, images=1, others=1)
    assert (short.order, short.groups, short.options) == (scenario.order, scenario.groups, scenario.options)
    assert [step.train_images for step in make_plan(short).steps] == [1]


def test_the_whole_stays_as_it_was(scenario):
    before = [len(step.train) for step in scenario]
    scenario.head(1, images=1, others=1)
    assert [len(step.train) for step in scenario] == before
    assert len(scenario) == 3


def test_more_than_there_is_is_all_there_is(scenario):
    same = scenario.head(9, images=1000, others=1000)
    assert make_plan(same).hash == make_plan(scenario).hash


def test_steps_by_domain_can_be_cut_too(tmp_path):
    towns = cities(tmp_path, {"a": 5, "b": 5, "c": 5, "d": 5}, tested=("d",))
    short = Scenario(towns, ScenarioOptions(by="domain", split="1-1", domains=["a", "b"])).head(2, images=2, others=1)
    assert [step.domains for step in short] == [("a",), ("b",)]
    assert [len(step.train) for step in short] == [2, 2]
