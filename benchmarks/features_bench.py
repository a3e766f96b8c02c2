"""What an epoch costs from kept features, beside an epoch of the whole network (`training.features`)."""

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import ratio
from contseg.data.classes import voc_palette
from contseg.data.files import write_palette_png
from contseg.engine.feature_cache import hold_features
from contseg.engine.job import Reporter
from contseg.engine.loading import StepBatches, evaluation_batches
from contseg.engine.ranks import make_fabric
from contseg.engine.remembered import Remembered
from contseg.engine.run import Run
from contseg.engine.session import Session
from contseg.engine.update import Updater
from contseg.methods.gaussian.features import Features
from contseg.methods.gaussian.gather import gather
from contseg.models.make import make_segmenter
from contseg.models.options import first_widths
from contseg.recipes.build import make_job, start_run
from contseg.recipes.read import read_recipe

CROP, IMAGES, OLD, NEW = 321, 2, 16, 5
"""Side of a crop, images of a step and of a batch, classes before the step, and new ones."""
Pair = tuple[Callable[[], object], Callable[[], object]]


def _data(root: Path) -> Path:
    """JPEGs of the size of VOC's, of which each has every new class."""
    rng, names = np.random.default_rng(0), [f"{number}" for number in range(2 * IMAGES)]
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number, name in enumerate(names):
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(root / "images" / f"{name}.jpg", quality=92)
        ids = rng.integers(*((OLD, OLD + NEW) if number < IMAGES else (1, OLD)), (12, 16), dtype=np.uint8)
        blocks = np.kron(np.where(rng.random((12, 16)) < 0.5, ids, 0), np.ones((32, 32), np.uint8))[:375, :500]
        write_palette_png(root / "masks" / f"{name}.png", blocks.astype(np.uint8), voc_palette())
    (root / "train.txt").write_text("\n".join(names) + "\n")
    (root / "test.txt").write_text("0\n")
    (root / "classes.txt").write_text("\n".join(["background", *map(str, range(1, OLD + NEW))]) + "\n")
    return root


def _session(root: Path, name: str, features: str, overrides: tuple[str, ...]) -> Session:
    """A run of a method on a ResNet-101 at output stride 16, of which step 1 is measured."""
    epochs = "[1, 0]" if name == "gaussian" else "[1, 1000]"
    changes = [
        "data.dataset=folder", f"data.path={root / 'data'}", "data.options={}", f"scenario.split={OLD - 1}-{NEW}",
        "data.pipeline=centre", f"data.crop={CROP}", "data.flip=0", f"training.batch={IMAGES}", "training.workers=0",
        f"training.epochs={epochs}", "network.backbone={name: resnet101, width: 64, output_stride: 16}",
        "network.head.width=256", "training.accelerator=cpu", "training.loggers=[]", f"training.features={features}",
    ]  # fmt: skip
    recipe = read_recipe(f"digits/{name}_5-1", [*changes, *overrides])
    folder = root / features
    start_run(recipe, folder)
    job = make_job(recipe, folder)
    return Session(make_fabric(job.training), job, Run(folder), Reporter())


def _epochs(session: Session) -> Callable[[], object]:
    """An epoch of step 1, after the first; features are there if they are kept."""
    job, step = session.job, session.job.scenario[1]
    teacher = make_segmenter(job.network, first_widths(job.network, step.old_count))
    student = make_segmenter(job.network, first_widths(job.network, step.old_count))
    student.load_state_dict(teacher.state_dict())
    student.grow(step.new_count, job.method.new_classes_start_from)
    batches = StepBatches(step, job.training_pipeline, job.training, 0.0, session.fabric.device, session.shard)
    updater = Updater(session, step, student, teacher if job.method.needs_teacher else None, batches)
    job.method.before_step(updater.context)
    hold_features(session, step, updater, batches)
    assert (batches.held is None) == (job.training.features == "live")
    numbers = itertools.count(1)

    def epoch() -> None:
        number = next(numbers)
        updater.begin_epoch(number, None)
        loaded = iter(batches.epoch(number))
        for update in range(batches.updates):
            updater.update(loaded, number * batches.updates + update, 1000 * batches.updates)

    return epoch


def training(name: str, *overrides: str) -> Pair:
    """An epoch from kept features, and one of the whole network."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    _data(root / "data")
    ours, whole = (_epochs(_session(root, name, features, overrides)) for features in ("cached", "live"))
    return ours, whole


def gaussian() -> Pair:
    """A pass of the Gaussian head over kept features after the first, and one of the whole network."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    _data(root / "data")
    session = _session(root, "gaussian", "live", (f"data.test_crop={CROP}",))
    job, step = session.job, session.job.scenario[1]
    student = make_segmenter(job.network, first_widths(job.network, step.seen_count)).eval()
    live = evaluation_batches(step.train, job.evaluation_pipeline, job.training, session.fabric.device)
    kept = Remembered(live, student, ("head",), root / "kept.bin")
    features = Features.measured(student, kept, "head", 512)
    return lambda: gather(student, kept, step.table, features), lambda: gather(student, live, step.table, features)


ROWS: dict[str, Callable[[], Pair]] = {
    "frozen-epoch": lambda: training("frozen"),
    "ssul-epoch": lambda: training("ssul"),
    "idec-released-epoch": lambda: training("idec", "method.variant=released"),
    "gaussian-pass": gaussian,
}
"""By name: (an epoch after the first, an epoch of the whole network)."""


def main() -> None:
    for name, make in ROWS.items():
        print(name, "{:.3f} s, {:.3f} s, {:.3f}".format(*ratio(*make(), repeats=3)), flush=True)


if __name__ == "__main__":
    main()
