"""Step 0 is learned once by all runs whose first step is the same, and by no other."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.engine.code import sources_digest
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.methods.finetune import Finetune
from contseg.methods.registry import METHODS
from tests.engine.runs import Watching, interrupted, job_in, learn, lines, same, tiny_recipe, weights


@pytest.fixture
def first(tmp_path):
    """A finished run that filled the cache."""
    return learn(tmp_path / "first", tiny_recipe("finetune"), cache=tmp_path / "cache")


def test_a_second_run_recalls_the_first_step(first, tmp_path):
    watching = Watching()
    second = learn(tmp_path / "second", tiny_recipe("finetune"), cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [0, 8]
    assert watching.notes == ["from the cache", ""]
    assert same(weights(second, 0), weights(first, 0))
    assert same(weights(second, 1), weights(first, 1))
    assert lines(second) == lines(first)


def test_two_methods_share_it(first, tmp_path):
    watching = Watching()
    learn(tmp_path / "second", tiny_recipe("plop"), cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [0, 8]


def test_without_a_cache_it_is_learned_again(first, tmp_path):
    watching = Watching()
    learn(tmp_path / "second", tiny_recipe("finetune"), reporter=watching)
    assert watching.updates == [8, 8]


@pytest.mark.parametrize("missing", ["rest.pt", "segmenter.safetensors"])
def test_a_result_that_is_half_deleted_is_learned_again_and_kept_again(first, tmp_path, missing):
    (place,) = (tmp_path / "cache").iterdir()
    (place / missing).unlink()
    watching = Watching()
    for number in range(2):
        learn(tmp_path / f"again{number}", tiny_recipe("finetune"), cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [8, 8, 0, 8]
    assert list((tmp_path / "cache").iterdir()) == [place]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["rest.pt", "segmenter.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", [flip, lambda path: path.write_bytes(b"half")], ids=["flip", "halve"])
def test_a_damaged_result_is_named_dropped_and_learned_again(first, tmp_path, name, harm):
    (place,) = (tmp_path / "cache").iterdir()
    harm(place / name)
    watching = Watching()
    for number in range(2):
        again = learn(tmp_path / f"again{number}", tiny_recipe("finetune"), cache=tmp_path / "cache", reporter=watching)
        assert same(weights(again, 1), weights(first, 1))
    assert watching.updates == [8, 8, 0, 8]
    assert [line for line in watching.messages if "damaged" in line] == [
        f"{place / name}: damaged; step 0 is not taken from the cache"
    ]


@pytest.mark.parametrize("folder", ["file/cache", "/proc/cache"])
def test_a_cache_that_cannot_be_written_is_one_line_and_training_goes_on(tmp_path, folder):
    (tmp_path / "file").touch()
    watching = Watching()
    run = learn(tmp_path / "run", tiny_recipe("finetune"), cache=tmp_path / folder, reporter=watching)
    assert run.summary()["steps"] == 2
    assert [line.partition(" (")[0] for line in watching.messages if "cache" in line] == [
        f"step 0 is not cached: {tmp_path / folder / key_of(run)}: cannot be written"
    ]


def key_of(run):
    return job_in(run.folder, tiny_recipe("finetune")).first_step_key()


def test_two_runs_that_learn_it_at_once_both_finish(tmp_path):
    class Slower(Watching):
        """While this run learns its first step, another one does, and is faster."""

        def updated(self, epoch, epochs, loss, images):
            super().updated(epoch, epochs, loss, images)
            if self.updates == [8]:
                learn(tmp_path / "faster", tiny_recipe("finetune"), cache=tmp_path / "cache")

    slower = learn(tmp_path / "slower", tiny_recipe("finetune"), cache=tmp_path / "cache", reporter=Slower())
    assert same(weights(slower), weights(Run(tmp_path / "faster")))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_method_with_a_first_step_of_its_own_does_not_share(first, tmp_path):
    @dataclass(frozen=True)
    class Own(Finetune):
        smoothing: float = 0.1

        def first_step_key(self):
            return {"smoothing": self.smoothing}

    watching = Watching()
    for number, smoothing in enumerate((0.1, 0.2, 0.1)):
        folder, method = tmp_path / f"own{number}", Own(smoothing=smoothing)
        learn(folder, tiny_recipe("finetune"), method=method, cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [8, 8, 8, 8, 0, 8]  # only the third finds one like itself


def test_what_a_method_remembers_of_the_first_step_comes_with_it(tmp_path):
    watching = Watching()
    first = learn(tmp_path / "first", tiny_recipe("sdr"), cache=tmp_path / "cache")
    second = learn(tmp_path / "second", tiny_recipe("sdr"), cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [0, 8]
    assert first.load_state(0).method["counts"].any()
    assert same(second.load_state(0).method, first.load_state(0).method)
    assert same(weights(second), weights(first))
    assert same(second.load_state(1).method, first.load_state(1).method)


def key(folder, method: str = "finetune", *overrides: str) -> str:
    return job_in(folder, tiny_recipe(method, *overrides)).first_step_key()


@pytest.mark.parametrize(
    "change",
    [
        "training.lr_later=0.5", "training.lr_factors_later={head: 0.5}", "training.epochs=[2, 9]", "training.workers=2",
        "scenario.split=5-1", "name=other",
    ],
)  # fmt: skip
def test_what_comes_after_the_first_step_does_not_matter(tmp_path, change):
    assert key(tmp_path / "one") == key(tmp_path / "two", "finetune", change)


@pytest.mark.parametrize(
    "change",
    [
        "training.lr=0.05", "training.seed=1", "training.epochs=3", "training.batch=4", "training.schedule=constant",
        "training.precision=bf16-mixed", "training.accumulate=2", "network.slope=0.0", "network.head_width=8",
        "scenario.split=4-6", "scenario.order=seed:1", "scenario.policy=mib", "scenario.validation=0.2",
        "scenario.setting=disjoint", "data.flip=0.5", "data.crop=40", "data.pipeline=ssul",
        "data.options={train: 61, test: 12, size: 48}", "data.jitter={hue: 0.1}", "training.devices=2",
    ],
)  # fmt: skip
def test_whatever_shapes_the_first_step_matters(tmp_path, change):
    assert key(tmp_path / "one") != key(tmp_path / "two", "finetune", change)


def test_the_precision_that_is_computed_with_matters_not_its_name(tmp_path):
    cpu = "training.accelerator=cpu"
    amp, full, half = (
        key(tmp_path / name, "finetune", cpu, f"training.precision={name}") for name in ("amp", "32", "16-mixed")
    )
    assert amp == full != half


def test_the_code_matters(tmp_path, monkeypatch):
    before = key(tmp_path / "one")
    monkeypatch.setattr("contseg.engine.job.package_digest", lambda: "of another version")
    assert key(tmp_path / "two") != before


@pytest.mark.parametrize("parent", ["finetune", "mib", "plop", "ssul", "ewc"])
def test_a_method_derived_from_a_packaged_one_shares_nothing_unless_it_says_so(tmp_path, parent):
    """It may supervise, prepare or remember otherwise, and nobody would see it."""
    kind = METHODS[parent]

    class Smooth(kind):
        def supervise(self, output, batch, context):
            return 0.5 * super().supervise(output, batch, context)

    class Plain(Smooth):
        first_step_is_plain = True

    policy = ["scenario.policy=ssul", "network.decision=sigmoid"] if parent == "ssul" else []
    job = job_in(tmp_path / "run", tiny_recipe(parent, *policy))
    own, derived, plain = (replace(job, method=method) for method in (kind(), Smooth(), Plain()))
    assert derived.first_step_key() != own.first_step_key()
    assert replace(job, method=Finetune()).first_step_key() != derived.first_step_key()
    if parent in ("finetune", "mib", "plop"):
        assert plain.first_step_key() == own.first_step_key()


def test_a_method_without_a_promise_is_known_by_name_and_hyper_parameters(tmp_path):
    @dataclass(frozen=True)
    class Own(Finetune):
        smoothing: float = 0.1
        name = "own"

    job = job_in(tmp_path / "run", tiny_recipe("finetune"))
    one, other, again = (replace(job, method=Own(smoothing)).first_step_key() for smoothing in (0.1, 0.2, 0.1))
    assert one == again != other
    assert Own(0.2).first_step_key() == {"method": "own", "smoothing": 0.2}


def test_what_a_derived_method_learned_is_not_taken_over_by_its_parent(tmp_path):
    class Doubled(Finetune):
        def supervise(self, output, batch, context):
            return 2 * super().supervise(output, batch, context)

    learn(tmp_path / "own", tiny_recipe("finetune"), method=Doubled(), cache=tmp_path / "cache")
    watching = Watching()
    learn(tmp_path / "packaged", tiny_recipe("finetune"), cache=tmp_path / "cache", reporter=watching)
    assert watching.updates == [8, 8]


@dataclass(frozen=True)
class Counted(Finetune):
    """Leaves a file for every process that computes its key."""

    folder: str = ""

    def first_step_key(self):
        (Path(self.folder) / str(os.getpid())).touch()
        return super().first_step_key()


@pytest.mark.slow
def test_one_rank_computes_the_key_for_all(tmp_path):
    (tmp_path / "processes").mkdir()
    recipe = tiny_recipe("finetune", "training.devices=2", "training.epochs=1", "scenario.split=offline")
    learn(tmp_path / "run", recipe, method=Counted(folder=str(tmp_path / "processes")), cache=tmp_path / "cache")
    assert len(list((tmp_path / "processes").iterdir())) == 1


class TestSaliency:
    """Maps are labels: another folder of the same maps is the same, other maps are not."""

    @staticmethod
    def maps(folder, root, value):
        folder.mkdir()
        for path in (root / "images").glob("*.png"):
            Image.fromarray(np.full((32, 32), value, np.uint8)).save(folder / path.name)
        return folder

    def key_with(self, run, root, maps):
        data = ["data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=2-1"]
        return key(run, "ssul", *data, f"scenario.saliency={maps}")

    def test_contents_matter_and_the_place_does_not(self, tmp_path, make_folder):
        root = make_folder()
        one, other, same_ = (
            self.maps(tmp_path / name, root, value) for name, value in (("one", 0), ("other", 255), ("same", 0))
        )
        keys = [self.key_with(tmp_path / f"run{maps.name}", root, maps) for maps in (one, other, same_)]
        assert keys[0] == keys[2] != keys[1]
        Image.fromarray(np.full((32, 32), 9, np.uint8)).save(one / "000.png")
        assert self.key_with(tmp_path / "edited", root, one) != keys[0]

    def test_a_missing_map_is_one_line(self, tmp_path, make_folder):
        root = make_folder()
        maps = self.maps(tmp_path / "maps", root, 0)
        (maps / "001.png").unlink()
        with pytest.raises(ContsegError, match=r"001\.png: saliency map cannot be read \(No such file or directory\);"):
            self.key_with(tmp_path / "run", root, maps)


def test_changed_files_matter(tmp_path, make_folder):
    root = make_folder()
    recipe = ("data.dataset=folder", f"data.path={root}", "data.options={}", "scenario.split=2-1")
    before = key(tmp_path / "one", "finetune", *recipe)
    image = next((root / "images").glob("*.png"))
    image.write_bytes(image.read_bytes() + b" ")
    assert key(tmp_path / "two", "finetune", *recipe) != before


@pytest.mark.parametrize("moment", ["evaluated", "step_finished"])
def test_a_run_that_stops_after_filling_the_cache_tells_every_epoch_once(first, tmp_path, moment):
    recipe, cache = tiny_recipe("finetune"), tmp_path / "another cache"
    interrupted(tmp_path / "cut", recipe, moment, 1, cache=cache)
    assert lines(learn(tmp_path / "cut", recipe, cache=cache)) == lines(first)


def test_a_begun_run_that_finds_its_first_step_in_the_cache_tells_every_epoch_once(first, tmp_path):
    recipe = tiny_recipe("finetune")
    interrupted(tmp_path / "cut", recipe, "updated", 6)  # in the second epoch
    assert lines(learn(tmp_path / "cut", recipe, cache=tmp_path / "cache")) == lines(first)


def test_the_digest_of_the_code_covers_the_files_beside_the_rooms(tmp_path, monkeypatch):
    monkeypatch.setattr("contseg.engine.code.files", lambda package: tmp_path)
    digests = []
    for name in ("ranks.py", "engine/step.py", "cli/main.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        digests.append(sources_digest.__wrapped__())
    assert digests[0] != digests[1] == digests[2]
