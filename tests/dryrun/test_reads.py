"""What counts as reading a key, and what does not."""

import copy
from dataclasses import asdict, replace

import pytest

from contseg.dryrun.reads import Reads
from contseg.methods.ewc import EWC
from contseg.methods.plop import PLOP
from contseg.models.options import NetworkOptions
from contseg.scenarios.options import MemoryOptions, ScenarioOptions

BLANKET = [repr, copy.copy, copy.deepcopy, pytest.param(lambda value: value == value, id="equality")]


def told(look) -> str:
    """The name of a function, which is the same in every process."""
    return look.__name__


@pytest.mark.parametrize("look", [*BLANKET, NetworkOptions.model_dump, NetworkOptions.model_copy], ids=told)
def test_looking_at_a_model_as_a_whole_reads_no_field(look):
    reads = Reads()
    network = reads.watch(NetworkOptions(backbone="resnet18", mean=(0.1, 0.2, 0.3)), "network")
    look(network)
    assert reads.unread(["network.backbone", "network.mean"]) == ["network.backbone", "network.mean"]


@pytest.mark.parametrize("look", [*BLANKET, hash, asdict, replace, EWC.first_step_key], ids=told)
def test_looking_at_a_method_as_a_whole_reads_no_field(look):
    reads = Reads()
    look(reads.watch(EWC(), "method"))
    assert reads.unread(["method.alpha"]) == ["method.alpha"]


def test_a_property_reads_the_fields_it_is_made_of():
    reads = Reads()
    assert reads.watch(NetworkOptions(dilations=(1, 2)), "network").atrous_rates == (1, 2)
    assert reads.unread(["network.dilations", "network.output_stride"]) == ["network.output_stride"]


def test_copies_are_watched_too():
    reads = Reads()
    watched = reads.watch(NetworkOptions(), "network")
    for number, another in enumerate((copy.deepcopy(watched), watched.model_copy(update={"width": 8}))):
        key = ("head", "slope")[number]
        getattr(another, key)
        assert reads.unread([f"network.{key}"]) == []


def test_what_is_watched_is_what_it_was():
    method, reads = PLOP(pod=0.5), Reads()
    watched = reads.watch(method, "method")
    assert isinstance(watched, PLOP)
    assert watched.state is method.state
    assert repr(watched) == repr(method)
    network = NetworkOptions(width=8)
    assert reads.watch(network, "network").model_dump() == network.model_dump()


def test_a_key_in_a_field_is_read_with_it_unless_it_is_watched_itself():
    reads = Reads()
    memory = reads.watch(MemoryOptions(size=3), "scenario.memory")
    scenario = reads.watch(ScenarioOptions(memory=memory), "scenario")
    assert scenario.memory.size == 3
    assert reads.unread(["scenario.memory.size", "scenario.memory.share"]) == ["scenario.memory.share"]
    network = reads.watch(NetworkOptions(backbone_options={"depths": [1]}), "network")
    assert network.backbone_options["depths"] == [1]
    assert reads.unread(["network.backbone_options.depths"]) == []


def test_only_models_and_dataclasses_can_be_watched():
    with pytest.raises(TypeError, match="dict is neither"):
        Reads().watch({}, "method")
