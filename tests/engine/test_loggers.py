"""Loggers follow metrics.jsonl: each line once, also after a kill, and a logger that fails ends nothing."""

import struct
import time
from pathlib import Path

import pytest

from contseg.engine.inputs import recipe_changes
from contseg.engine.loggers import loggers
from contseg.engine.loggers.logger import points
from contseg.engine.loggers.loggers import Loggers
from contseg.engine.options import TrainingOptions
from contseg.engine.ready import require_startable
from contseg.engine.run import LOGGERS, METRICS, Run
from contseg.errors import ContsegError
from contseg.models.options import NetworkOptions
from tests.engine.runs import command, interrupted, tiny_recipe

RECIPE = {"name": "mine", "training": {"lr": 0.1}}


def epoch(number: int) -> dict:
    return {"kind": "epoch", "step": 0, "epoch": number, "loss": 1.0 / (1 + number), "lr": 0.1, "terms": {"ce": 0.5}}


STEP = {"kind": "step", "step": 0, "old": 0.5, "new": None, "all": 0.5, "all_with_background": 0.75}


class Kept:
    """A logger that keeps its points by the name of its run. `broken` are its methods that fail."""

    runs: dict[str, list[int]]
    broken: set[str]
    closed: list[bool]

    def open(self, run, recipe, known):
        self.fail("open")
        self.name = known or f"run {len(self.runs)}"
        self.runs.setdefault(self.name, [])
        return self.name

    def log(self, points):
        self.fail("log")
        self.runs[self.name] += [point.line for point in points]

    def close(self, finished):
        self.fail("close")
        self.closed.append(finished)

    def fail(self, method: str) -> None:
        if method in self.broken:
            raise OSError(28, "No space left\non device")


@pytest.fixture
def kinds(monkeypatch) -> dict[str, type[Kept]]:
    """Two loggers under the names of modules that are there."""
    made = {name: type(name, (Kept,), {"runs": {}, "broken": set(), "closed": []}) for name in ("json", "csv")}
    monkeypatch.setattr(loggers, "KINDS", made)
    return made


class Attempts:
    """Processes that train in a folder, one after the other."""

    def __init__(self, folder: Path):
        self.run, self.warnings = Run(folder), list[str]()

    def start(self, *names: str) -> Loggers:
        return Loggers(self.run, names or ("json",), RECIPE, self.warnings.append)

    def lines(self, *lines: dict) -> None:
        for line in lines:
            self.run.append_metrics(line)


@pytest.fixture
def attempts(tmp_path) -> Attempts:
    return Attempts(tmp_path)


def test_every_line_is_sent_once_as_it_is_written(attempts, kinds):
    running = attempts.start()
    for count in range(1, 4):
        attempts.lines(epoch(count))
        running.update()
        running.update()
        assert kinds["json"].runs == {"run 0": list(range(count))}


def test_a_resumed_run_goes_on_in_the_same_run_of_the_logger_without_a_point_twice(attempts, kinds):
    attempts.lines(epoch(0), epoch(1), STEP)
    attempts.start().update()
    whole = (attempts.run.folder / METRICS).read_bytes()
    (attempts.run.folder / METRICS).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))  # as a kill leaves it
    resumed = attempts.start()
    resumed.update()
    attempts.lines(STEP, epoch(2))  # the line that was lost is made again
    resumed.update()
    assert kinds["json"].runs == {"run 0": [0, 1, 2, 3]}


def test_a_logger_that_is_chosen_later_gets_all_lines(attempts, kinds):
    attempts.lines(epoch(0), STEP)
    attempts.start("json").update()
    attempts.lines(epoch(1))
    attempts.start("json", "csv").update()
    assert (kinds["json"].runs, kinds["csv"].runs) == ({"run 0": [0, 1, 2]}, {"run 0": [0, 1, 2]})


def test_nothing_is_opened_without_a_line(attempts, kinds):
    running = attempts.start()
    running.update()
    running.close()
    assert kinds["json"].runs == {}
    assert not (attempts.run.folder / LOGGERS).exists()


@pytest.mark.parametrize("method", ["open", "log", "close"])
def test_a_logger_that_fails_is_one_warning_and_the_others_go_on(attempts, kinds, method):
    kinds["json"].broken.add(method)
    running = attempts.start("json", "csv")
    for number in range(2):
        attempts.lines(epoch(number))
        running.update()
    running.close()
    assert kinds["csv"].runs == {"run 0": [0, 1]}
    assert attempts.warnings == [
        "warning: logger json failed ([Errno 28] No space left on device); training continues without it"
    ]


def test_what_a_failed_logger_missed_is_sent_by_the_next_resume(attempts, kinds):
    attempts.lines(epoch(0))
    running = attempts.start()
    running.update()
    kinds["json"].broken.add("log")
    attempts.lines(epoch(1))
    running.update()
    kinds["json"].broken.clear()
    attempts.start().update()
    assert kinds["json"].runs == {"run 0": [0, 1]}


def test_a_damaged_record_is_a_warning_too(attempts, kinds):
    attempts.lines(epoch(0))
    attempts.start().update()
    (attempts.run.folder / LOGGERS).write_text("{")
    attempts.start().update()
    [warning] = attempts.warnings
    assert LOGGERS in warning


def test_loggers_close_with_whether_the_run_is_finished(attempts, kinds):
    for finished in (False, True):
        attempts.lines(epoch(0))
        running = attempts.start()
        running.update()
        if finished:
            attempts.run.write_text("summary.json", "{}")
        running.close()
    assert kinds["json"].closed == [False, True]


def test_a_chosen_logger_without_its_package_is_an_error_with_the_extra(monkeypatch):
    monkeypatch.setattr(loggers, "is_installed", lambda package: False)
    with pytest.raises(ContsegError, match=r"training.loggers: wandb is not installed; pip install 'contseg\[wandb\]'"):
        require_startable(TrainingOptions(loggers=["tensorboard", "wandb"]), NetworkOptions(), 3)
    require_startable(TrainingOptions(), NetworkOptions(backbone={"name": "resnet18", "width": 4}), 3)


def test_loggers_are_not_compared_at_a_resume():
    assert recipe_changes({"training": {"loggers": ["tensorboard"]}}, {"training": {"loggers": ["mlflow"]}}) == {}


def curves(found: list[tuple[str, int, float]]) -> dict[str, list[tuple[int, float]]]:
    """Name of a curve to its positions and values."""
    named: dict[str, list[tuple[int, float]]] = {}
    for name, position, value in found:
        named.setdefault(name, []).append((position, value))
    return named


def expected(run: Run) -> dict[str, list[tuple[int, float]]]:
    return curves([(name, one.position, value) for one in points(run.metrics()) for name, value in one.values.items()])


def in_tensorboard(run: Run) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def in_mlflow(run: Run) -> dict[str, list[tuple[int, float]]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient((run.folder / "mlruns").resolve().as_uri())
    [found] = client.search_runs([client.get_experiment_by_name("contseg").experiment_id])
    assert found.data.params["training.lr"] == "0.1"
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }


def in_wandb(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The points in all offline files, which are one run after `wandb sync`."""
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    files, names, found = sorted((run.folder / "wandb").glob("offline-run-*/*.wandb")), set(), []
    for file in files:
        names.add(file.stem)
        for content in records(file.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") == "history":
                values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                axis = "epoch" if "epoch" in values else "step"
                found += [(name, values[axis], value) for name, value in values.items() if "/" in name]
    assert len(names) == 1  # the same run of W&B
    return curves(found)


def records(content: bytes) -> list[bytes]:
    """The records of a file in the log format of LevelDB, after W&B's header of seven bytes."""
    found, parts, place, block = [], b"", 7, 1 << 15
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(parts)
            parts = b""
    return found


READERS = {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", READERS)
def test_the_real_logger_has_each_point_once_without_a_network_also_after_a_resume(attempts, offline, name):
    pytest.importorskip(name)
    for lines in ([epoch(0), epoch(1)], [STEP, epoch(2)]):
        running = attempts.start(name)
        attempts.lines(*lines)
        running.update()
        running.close()
        time.sleep(1.1 if name == "wandb" else 0)  # its folders are named by the second
    assert attempts.warnings == []
    found, wanted = READERS[name](attempts.run), expected(attempts.run)
    assert {key: [place for place, _ in values] for key, values in found.items()} == {
        key: [place for place, _ in values] for key, values in wanted.items()
    }
    for key, values in wanted.items():
        assert [value for _, value in found[key]] == pytest.approx([value for _, value in values])


def test_a_store_that_a_variable_names_is_used_in_place_of_the_folder(attempts, offline, monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    attempts.lines(epoch(0))
    attempts.start("mlflow").update()
    assert attempts.warnings == []
    assert list((tmp_path / "store").rglob("train/loss"))
    assert not (attempts.run.folder / "mlruns").exists()


def test_a_server_that_is_not_there_is_one_warning(attempts, offline, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    attempts.lines(epoch(0))
    running = attempts.start("mlflow")
    running.update()
    running.update()
    assert len(attempts.warnings) == 1
    assert attempts.warnings[0].startswith("warning: logger mlflow failed (")


@pytest.mark.slow
def test_an_interrupted_run_goes_on_in_all_loggers(tmp_path, offline):
    for name in READERS:
        pytest.importorskip(name)
    recipe = tiny_recipe("finetune", f"training.loggers=[{','.join(READERS)}]")
    run = Run(tmp_path / "run")
    interrupted(run.folder, recipe, "updated", 6)  # in the second epoch
    code, out, _ = command("train", "--resume", run.folder)
    assert code == 0
    assert "warning" not in out
    for name, read in READERS.items():
        places = {key: [place for place, _ in values] for key, values in read(run).items()}
        assert places == {key: [place for place, _ in values] for key, values in expected(run).items()}, name
