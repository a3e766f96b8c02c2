"""`training.features=cached`: what a step does not change is computed once, and the result is that of `live`."""

import json
import shutil
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from contseg.engine import feature_cache, records
from contseg.engine.records import RecordReader, RecordWriter
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.methods.frozen import Frozen
from contseg.models.heads.deeplabv3_ssul import DeepLabV3SSUL
from contseg.models.segmenter import Segmenter
from tests.engine.runs import (
    DOUBLES,
    RELEASED_DOUBLES,
    StoppedError,
    Watching,
    distance,
    interrupted,
    job_in,
    learn,
    lines,
    same,
    tiny_recipe,
    weights,
)

FIXED = ("data.pipeline=centre", "training.epochs=[1,4]", "data.options={train: 40, test: 8, size: 48}")
CACHED = (*FIXED, "training.features=cached")
RELEASED = ("method.variant=released",)
HELD = ("network.backbone.freeze=all",)
CASES = [
    ("frozen", ()),
    ("ssul", ()),
    ("ssul-m", ()),
    ("idec", RELEASED),
    ("lag", RELEASED),
    ("mib", HELD),
    ("plop", HELD),
]


def messages(folder, recipe, **options) -> list[str]:
    watching = Watching()
    learn(folder, recipe, reporter=watching, **options)
    return [text for text in watching.messages if "computed" in text]


class Counting:
    """How many images pass through a backbone."""

    def __init__(self, monkeypatch, kind):
        self.images, before = 0, kind.forward

        def forward(module, images_BCHW):
            self.images += len(images_BCHW)
            return before(module, images_BCHW)

        monkeypatch.setattr(kind, "forward", forward)


@pytest.mark.parametrize("flip", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "overrides"), CASES, ids=[name for name, _ in CASES])
def test_every_method_learns_what_it_learns_live(tmp_path, name, overrides, flip):
    more = (*overrides, f"data.flip={flip}")
    live = learn(tmp_path / "live", tiny_recipe(name, *FIXED, *more))
    told = messages(tmp_path / "cached", tiny_recipe(name, *CACHED, *more))
    cached = Run(tmp_path / "cached")
    assert told
    assert ("mirror images" in told[-1]) == bool(flip)
    assert distance(weights(cached), weights(live)) <= 1e-5
    for one, other in zip(lines(cached, "epoch"), lines(live, "epoch"), strict=True):
        assert one["terms"] == pytest.approx(other["terms"], abs=1e-5)
        assert one.get("pseudo") == other.get("pseudo")
    assert not list((tmp_path / "cached").rglob("features"))


def test_bf16_rounds_and_learns_nearly_the_same(tmp_path):
    live = learn(tmp_path / "live", tiny_recipe("ssul", *FIXED))
    half = learn(tmp_path / "half", tiny_recipe("ssul", *FIXED, "training.features=cached-bf16"))
    assert 0 < distance(weights(half), weights(live)) < 0.05
    assert same(weights(half, 0), weights(live, 0))


@pytest.mark.parametrize("overrides", [("training.accumulate=2", "training.batch=5"), ("training.precision=bf16-mixed",)])
def test_passes_and_mixed_precision_are_those_of_live(tmp_path, overrides):
    live = learn(tmp_path / "live", tiny_recipe("ssul", *FIXED, *overrides))
    cached = learn(tmp_path / "cached", tiny_recipe("ssul", *CACHED, *overrides))
    assert distance(weights(cached), weights(live)) <= 1e-5


def test_an_auxiliary_head_starts_behind_its_convolution(tmp_path):
    network = ("network.head=fcn", "network.auxiliary={width: 8}", "data.flip=0")
    live = learn(tmp_path / "live", tiny_recipe("frozen", *FIXED, *network))
    told = messages(tmp_path / "cached", tiny_recipe("frozen", *CACHED, *network))
    assert "(head, auxiliary)" in told[0]
    assert distance(weights(Run(tmp_path / "cached")), weights(live)) <= 1e-5


def test_the_network_is_computed_once_for_each_image_and_way(tmp_path, monkeypatch):
    from contseg.models.backbones.resnet import ResNet

    counts = {}
    for name, more in (("live", FIXED), ("cached", CACHED)):
        with monkeypatch.context() as patch:
            counting = Counting(patch, ResNet)
            recipe = tiny_recipe("ssul", *more, "training.epochs=[1,9]", "data.flip=0.5", "training.loggers=[]")
            job = job_in(tmp_path / name, recipe)
            size = len(job.scenario[1].train)
            learn(tmp_path / name, recipe)
            counts[name] = counting.images
    updates = size // 10
    trained = 9 * updates * 10 * 2  # of student and teacher
    built = 2 * -(-size // 10) * 10 + 3 * 10  # both ways, and the comparison of student and teacher
    assert counts["live"] - counts["cached"] == trained - built


class TestResume:
    def test_within_a_step_finds_the_features_again(self, tmp_path):
        live = learn(tmp_path / "live", tiny_recipe("ssul", *FIXED))
        interrupted(tmp_path / "cut", tiny_recipe("ssul", *CACHED), "updated", 6)
        folder = Run(tmp_path / "cut").feature_folder(1)
        written = (folder / "0.bin").stat().st_mtime_ns
        seen = []
        watching = Watching()
        watching.updated = lambda *arguments: seen.append((folder / "0.bin").stat().st_mtime_ns)  # type: ignore[method-assign]
        learn(tmp_path / "cut", tiny_recipe("ssul", *CACHED), reporter=watching)
        assert set(seen) == {written}
        assert not folder.exists()
        assert distance(weights(Run(tmp_path / "cut")), weights(live)) <= 1e-5

    @pytest.mark.parametrize("harm", ["cut", "foreign", "unfinished"])
    def test_computes_them_again_if_they_are_not_sound(self, tmp_path, harm):
        live = learn(tmp_path / "live", tiny_recipe("ssul", *FIXED))
        interrupted(tmp_path / "cut", tiny_recipe("ssul", *CACHED), "updated", 6)
        folder = Run(tmp_path / "cut").feature_folder(1)
        complete = folder / "complete.json"
        if harm == "cut":
            (folder / "0.bin").write_bytes((folder / "0.bin").read_bytes()[:-64])
        elif harm == "foreign":
            complete.write_text(json.dumps(json.loads(complete.read_text()) | {"key": "0"}))
        else:
            complete.unlink()
        assert messages(tmp_path / "cut", tiny_recipe("ssul", *CACHED))
        assert distance(weights(Run(tmp_path / "cut")), weights(live)) <= 1e-5

    def test_deletes_what_a_kill_after_the_last_update_left(self, tmp_path, monkeypatch):
        def killed(session, of):
            if of.index:
                raise StoppedError

        with monkeypatch.context() as patch:
            patch.setattr("contseg.engine.step.discard_features", killed)
            with pytest.raises(StoppedError):
                learn(tmp_path / "cut", tiny_recipe("ssul", *CACHED))
        folder = Run(tmp_path / "cut").feature_folder(1)
        assert (folder / "complete.json").is_file()
        assert not messages(tmp_path / "cut", tiny_recipe("ssul", *CACHED))
        assert not folder.exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "overrides", "message"),
        [
            ("ssul", ("data.pipeline=ssul",), r"^data\.pipeline: 'ssul' draws another crop .*set data\.pipeline=centre, or"),
            ("ssul", ("data.jitter={hue: 0.1}",), r"^data\.jitter: draws other colours .*; set data\.jitter=null, or"),
            ("mib", (), r"^training\.features: 'cached' .* with method 'mib' backbone\.conv1\.weight is trained in step 1"),
            ("mib", ("network.backbone.freeze=stage3",), r"backbone\.layer4\.0\.conv1\.weight is trained in step 1"),
        ],
    )  # fmt: skip
    def test_name_the_key_to_set(self, tmp_path, name, overrides, message):
        with pytest.raises(ContsegError, match=message) as caught:
            job_in(tmp_path / "run", tiny_recipe(name, *CACHED, *overrides))
        assert "\n" not in str(caught.value)

    def test_a_disk_without_room_is_told_before_anything_is_written(self, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(records.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(ContsegError, match=r"training\.features: features of \d+ images take .* where 1\.0 kB are free"):
            learn(tmp_path / "run", tiny_recipe("frozen", *CACHED))
        assert not list((tmp_path / "run").rglob("*.bin"))

    def test_a_layer_that_draws_without_being_known_is_found(self, tmp_path):
        with pytest.raises(
            ContsegError, match=r"'cached' keeps features, but head of the image .* differs from pass to pass"
        ):
            learn(tmp_path / "run", tiny_recipe("frozen", *CACHED), method=Noisy())

    def test_a_norm_in_training_mode_is_named_and_the_step_is_live(self, tmp_path):
        told = messages(tmp_path / "run", tiny_recipe("frozen", *CACHED), method=Moving())
        assert told == [
            "step 1: features are computed in every epoch, as the norm backbone.bn1 uses the statistics of the batch"
        ]

    def test_a_step_with_too_few_epochs_is_live(self, tmp_path):
        assert not messages(tmp_path / "run", tiny_recipe("frozen", *CACHED, "training.epochs=[1,2]", "data.flip=0.5"))


class Noise(nn.Module):
    """Not known to draw."""

    def forward(self, x):
        return x + torch.randn_like(x)


@dataclass(frozen=True)
class Noisy(Frozen):
    """A head that never gives the same twice."""

    def prepare(self, segmenter, step):
        super().prepare(segmenter, step)
        if step.old_count:
            segmenter.head.activation = Noise()


@dataclass(frozen=True)
class Moving(Frozen):
    """Freezes weights and forgets the norms."""

    def prepare(self, segmenter, step):
        if step.old_count:
            segmenter.freeze("backbone", "head", norms=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "overrides"), [("ssul", ()), ("idec", RELEASED), ("frozen", ("data.flip=0.5",))])
def test_two_processes_share_the_files_and_learn_what_one_learns(tmp_path, name, overrides):
    """In float64, as sums over ranks are taken in another order."""
    method = (RELEASED_DOUBLES if overrides == RELEASED else DOUBLES)[name]()
    gentle = (*CACHED, *overrides, "training.lr=0.003", "training.lr_later=0.001", "network.head.dropout=0.0")
    gentle = gentle if name != "frozen" else gentle[:-1]
    one = learn(tmp_path / "one", tiny_recipe(name, *gentle), method=method)
    two = learn(tmp_path / "two", tiny_recipe(name, *gentle, "training.devices=2"), method=method)
    assert distance(weights(two), weights(one)) < 1e-6
    assert not list((tmp_path / "two").rglob("features"))


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("method.rho=auto",), marks=pytest.mark.slow),
        ("method.centres=2", "method.tap=stage3"),
        pytest.param(("method.background=distance",), marks=pytest.mark.slow),
    ],
)
def test_the_passes_of_the_gaussian_head_are_those_of_live(tmp_path, overrides, monkeypatch):
    from contseg.models.backbones.resnet import ResNet

    live = learn(tmp_path / "live", tiny_recipe("gaussian", *overrides))
    counting = Counting(monkeypatch, ResNet)
    cached = learn(tmp_path / "cached", tiny_recipe("gaussian", *overrides, "training.features=cached"))
    once = counting.images
    learn(tmp_path / "again", tiny_recipe("gaussian", *overrides))
    assert once < counting.images - once
    one, other = cached.load_state(1).method, live.load_state(1).method
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value.double(), other[name].double(), rtol=1e-5, atol=1e-5), name
    assert not list((tmp_path / "cached").rglob("features"))


class TestPoints:
    @pytest.mark.parametrize("taps", [(), ("aspp1", "aspp2", "aspp3", "aspp4"), ("stage2", "pyramid")])
    def test_a_forward_pass_from_them_is_the_pass_from_images(self, taps):
        from contseg.models.from_features import FromFeatures
        from contseg.models.held import start_points
        from contseg.models.options import NetworkOptions

        network = NetworkOptions(backbone={"name": "resnet18", "width": 8}, head={"name": "deeplabv3-ssul", "width": 16})
        segmenter = Segmenter(network, [3, 1])
        segmenter.freeze_all_but(-1)
        taps = tuple(tap for tap in taps if tap in segmenter.taps)
        images = torch.rand(2, 3, 64, 64)
        start = FromFeatures(segmenter.features_at(images, start_points(segmenter, taps)))
        torch.manual_seed(3)
        live = segmenter(images, taps)
        torch.manual_seed(3)
        begun = segmenter(None, taps, start)
        assert torch.equal(begun.logits, live.logits)
        assert list(begun.features) == list(live.features) == list(taps)
        assert all(torch.equal(begun.features[tap], live.features[tap]) for tap in taps)

    def test_a_trained_pyramid_of_the_head_makes_the_stages_the_points(self):
        from contseg.models.held import start_points
        from contseg.models.options import NetworkOptions

        network = NetworkOptions(backbone={"name": "resnet18", "width": 8}, head={"name": "deeplabv3-ssul", "width": 16})
        segmenter = Segmenter(network, [3, 1])
        segmenter.freeze_all_but(-1)
        assert isinstance(segmenter.head, DeepLabV3SSUL)
        assert start_points(segmenter, ("aspp1",)) == ("head", "aspp1")
        segmenter.head.dense[0].requires_grad_(True)
        assert start_points(segmenter, ("aspp1",)) == ("stage4", "stage1", "stage2", "stage3")


class TestRecords:
    def test_an_unfinished_file_has_no_index(self, tmp_path):
        path = tmp_path / "a.bin"

        def write():
            with RecordWriter(path) as writer:
                writer.append({"a": torch.ones(3)})
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write()
        with pytest.raises(OSError, match=r"a\.bin\.json"):
            RecordReader(path)

    def test_a_file_without_records_can_be_read(self, tmp_path):
        with RecordWriter(tmp_path / "a.bin"):
            pass
        assert len(RecordReader(tmp_path / "a.bin")) == 0

    @pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8])
    def test_every_type_comes_back_bit_for_bit(self, tmp_path, kind):
        values = torch.arange(7).to(kind)
        with RecordWriter(tmp_path / "a.bin") as writer:
            writer.append({"x": torch.ones(5, dtype=torch.uint8), "y": values})
        assert torch.equal(RecordReader(tmp_path / "a.bin")[0]["y"], values)


def test_the_key_covers_weights_and_pipeline(tmp_path):
    keys = set()
    for more in ((), ("data.crop=40",), ("training.seed=3",), ("training.features=cached-bf16",)):
        folder = tmp_path / str(len(keys))
        interrupted(folder, tiny_recipe("frozen", *CACHED, *more), "updated", 6)
        keys.add(json.loads((Run(folder).feature_folder(1) / "complete.json").read_text())["key"])
    assert len(keys) == 4
    assert feature_cache.WAYS
