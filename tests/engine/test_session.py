"""What a session shares, and what the ranks other than 0 leave to rank 0."""

from types import SimpleNamespace

import numpy as np
import pytest

from contseg.data.classes import ClassTable
from contseg.engine.job import Reporter
from contseg.engine.read_only_run import ReadOnlyRun
from contseg.engine.run import Run
from contseg.engine.session import Session
from contseg.engine.step_state import StepState
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

WRITES = {
    "write_text": ("summary.json", "{}"),
    "append_metrics": ({"kind": "epoch"},),
    "save_arrays": ("samples.npz",),
    "save_state": (0, StepState(finished=True, seconds=0.0, method={})),
    "save_segmenter": (0, Segmenter(NetworkOptions(width=2, head_width=2), [2]), ClassTable.of(["background", "cat"]), {}),
}


@pytest.fixture(params=[0, 1])
def session(request, tmp_path) -> Session:
    return Session.of(SimpleNamespace(global_rank=request.param), SimpleNamespace(folder=tmp_path), Loud())


class Loud(Reporter):
    """Fails if it receives a message."""

    def message(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize("write", WRITES)
def test_only_rank_0_writes(session, write, tmp_path):
    getattr(session.run, write)(*WRITES[write])
    assert any(tmp_path.iterdir()) == session.leads


def test_only_rank_0_reports(session):
    if session.leads:
        with pytest.raises(AssertionError, match="hello"):
            session.reporter.message("hello")
    else:
        session.reporter.message("hello")


def test_other_ranks_do_not_truncate_the_metrics_and_read_what_rank_0_wrote(tmp_path):
    Run(tmp_path).append_metrics({"kind": "epoch"})
    Run(tmp_path).save_arrays("samples.npz", names=np.array(["a"]), truth0=np.zeros((1, 1)))
    other = ReadOnlyRun(tmp_path)
    other.rewind_metrics(None)
    assert other.metrics() == [{"kind": "epoch"}]
    assert other.arrays("samples.npz")["names"] == ["a"]
