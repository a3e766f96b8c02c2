"""Kill trainings and other commands at random moments, repeat them until they end, and compare what they wrote."""

import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.soak_process import Ended, Kill, contseg
from contseg.engine.run import Run
from contseg.errors import ContsegError
from tests.conftest import TINY
from tests.engine.runs import lines, same

PER_TRAINING = 5
"""Kills between the start of a training and its end."""
BASE = (*TINY, "scenario.split=5-5", "training.batch=10")
TRAININGS: dict[str, tuple[str, ...]] = {
    "fine-tuning": ("digits/finetune_5-1", *BASE),
    "PLOP": ("digits/plop_5-1", *BASE),
    "SDR": ("digits/sdr_5-1", *BASE),
    "IDEC": ("digits/idec_5-1", *BASE),
    "IDRNet": ("digits/mib_5-1", *BASE, "network.head={name: fcn, idrnet: {attention_width: 8}}"),
    "Gaussian": ("digits/gaussian_5-1", *BASE, "training.epochs=[2, 0]"),
    "replay": ("digits/ssul-m_5-1", *BASE),
    "best epoch": ("digits/mib_5-1", *BASE, "training.keep=best", "scenario.validation=0.2"),
    "two ranks": ("digits/plop_5-1", *BASE, "training.devices=2"),
}
NOTES = "Notes of the user, next to the files of the run.\n"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass
class Count:
    """The kills of a setup.

    Args:
        ends: works that were killed and ended.
        equal: of these, the ones whose files are equal to those of an undisturbed work.
        kills: kills by kind: at a moment, before a write, by another signal.
        survived: kills after which the work continued.
        lost: bytes of lines of metrics.jsonl and of files of the user that are missing or changed.
        faults: what went wrong.
    """

    ends: int = 0
    equal: int = 0
    kills: dict[str, int] = field(default_factory=lambda: {"moment": 0, "write": 0, "signal": 0})
    survived: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """Something to kill.

    Args:
        begin: the command that starts it in a folder.
        again: the command that continues it.
        differences: what differs between two folders in which it ended; "" for nothing.
        lost: bytes that are lost in the second of two folders.
        resumable: whether the signals end it with a command to resume.
        ranks: whether the work is done in child processes, whose writes cannot be counted.
    """

    begin: Callable[[Path], Sequence[object]]
    again: Callable[[Path], Sequence[object]]
    differences: Callable[[Path, Path], str]
    lost: Callable[[Path, Path], int] = lambda one, other: 0
    resumable: bool = False
    ranks: bool = False


def training(words: Sequence[str]) -> Work:
    """A training, which is resumed once its folder has a run."""

    def begin(folder: Path) -> Sequence[object]:
        return ["train", *words, "--out", folder]

    def again(folder: Path) -> Sequence[object]:
        return ["train", "--resume", folder] if (folder / "recipe.yaml").is_file() else begin(folder)

    return Work(begin, again, run_differences, lost_bytes, True, "training.devices=2" in words)


def works(material: Path) -> dict[str, Work]:
    """Everything to kill.

    Args:
        material: what the commands that prepare data and predict read.
    """

    def command(*words: object) -> Work:
        return Work(lambda out: [*words, "--out", out], lambda out: [*words, "--out", out], folder_differences)

    tiles, photos, trained = material / "potsdam", material / "photos", material / "run"
    return {
        **{name: training(words) for name, words in TRAININGS.items()},
        "prepare isprs": command("prepare", "isprs", "--potsdam", tiles, "--patch", 40, "--workers", 1),
        "data extract": command("data", "extract", "digits", "--class", "five", "--images", 40),
        "predict": command("predict", trained, photos),
    }


def write_material(folder: Path) -> None:
    """Write what `works` reads: tiles, photos, and a trained run."""
    from tests.trees.isprs import write_potsdam

    write_potsdam(folder / "potsdam")
    (folder / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / "photos" / f"{number}.png")
    ended = contseg(["train", *TRAININGS["fine-tuning"], "--out", folder / "run"], folder)
    if ended.code:
        raise ContsegError(f"soak: the first training failed ({ended.line})")


def run_differences(one: Path, other: Path) -> str:
    """What differs between two finished runs, besides clocks; "" for nothing."""
    try:
        return _run_differences(Run(one), Run(other))
    except (ContsegError, OSError) as error:
        return str(error)


def _run_differences(one: Run, other: Run) -> str:
    files = ["recipe.yaml", "plan.json", "inputs.json", "samples.npz"]
    steps = one.finished_steps()
    for step in range(steps):
        files += [f"steps/{step:02d}/{name}" for name in ("segmenter.safetensors", "confusion.npz", "predictions.npz")]
    for name in files:
        if not (other.folder / name).is_file() or (one.folder / name).read_bytes() != (other.folder / name).read_bytes():
            return name
    left, right = one.load_state(steps - 1), other.load_state(steps - 1)  # nothing reads the states before
    if left is None or right is None or not same(left.method, right.method):
        return f"steps/{steps - 1:02d}/state.pt"
    if lines(one) != lines(other):
        return "metrics.jsonl"
    summaries = [{**(run.summary() or {}), "seconds": 0} for run in (one, other)]
    if summaries[0] != summaries[1]:
        return "summary.json"
    left_over = [path.name for path in other.folder.rglob("*") if path.name.endswith(".partial") or path.name == "run.lock"]
    return left_over[0] if left_over else ""


def lost_bytes(one: Path, other: Path) -> int:
    """Bytes of lines of metrics.jsonl and of notes of the user that the second of two runs lacks."""
    found = lines(Run(other))
    missing = sum(len(str(line)) for line in lines(Run(one)) if line not in found)
    notes = other / "notes.txt"
    return missing + (0 if not notes.exists() or notes.read_text() == NOTES else len(NOTES))


def folder_differences(one: Path, other: Path) -> str:
    """The first file that differs between two folders; "" for none."""
    names = sorted({path.relative_to(root) for root in (one, other) for path in root.rglob("*") if path.is_file()})
    for name in names:
        if not all((root / name).is_file() for root in (one, other)):
            return f"{name} (only in one)"
        if (one / name).read_bytes() != (other / name).read_bytes():
            return str(name)
    return ""


def kill_all(out: Path, total: int, seed: int, say: Callable[[str], None], only: Sequence[str] = ()) -> dict[str, Any]:
    """Kill everything `total` times in all; returns the counts by setup, as plain values.

    Args:
        out: folder to work in.
        only: names of setups; all if empty.
    """
    shutil.rmtree(out, ignore_errors=True)
    write_material(out / "material")
    chosen = {name: work for name, work in works(out / "material").items() if not only or name in only}
    counts = {}
    for number, (name, work) in enumerate(chosen.items()):
        share = total * (number + 1) // len(chosen) - total * number // len(chosen)
        counts[name] = vars(kill(work, out / name.replace(" ", "-"), share, random.Random(f"{seed} {name}")))
        say(f"{name}: {counts[name]}")
    return counts


def kill(work: Work, place: Path, total: int, rng: random.Random) -> Count:
    """Kill a work `total` times; it ends after every `PER_TRAINING` kills."""
    count, whole = Count(), place / "whole"
    undisturbed = contseg(work.begin(whole), place)
    if undisturbed.code:
        count.faults.append(f"undisturbed: {undisturbed.line}")
        return count
    left, number = total, 0
    while left > 0 and number < total + 3:
        number += 1
        left -= _one(work, place / "trial", whole, min(left, PER_TRAINING), undisturbed.seconds, rng, count)
    return count


def _one(work: Work, place: Path, whole: Path, kills: int, seconds: float, rng: random.Random, count: Count) -> int:
    """Start a work, kill it several times, and compare its end; returns the number of kills."""
    shutil.rmtree(place, ignore_errors=True)
    folder, done, faults = place / "out", 0, []
    ended, what = None, ""
    while not (ended and ended.code == 0):
        planned = _planned(work, seconds, kills, rng) if done < kills else None
        ended = contseg((work.again if ended else work.begin)(folder), place, folder, planned)
        if planned and ended.signalled and ended.code != 0:
            kind = "write" if planned.change else "moment" if planned.number == signal.SIGKILL else "signal"
            count.kills[kind] += 1
            done += 1
            if problem := _problem(work, planned, ended):
                faults.append(f"{problem} (after {what})")
            else:
                count.survived += 1
            what = f"{signal.Signals(planned.number).name} at {planned.change or f'{planned.seconds:.2f} s'}"
            if (folder / "recipe.yaml").is_file() and work.resumable:
                (folder / "notes.txt").write_text(NOTES)
        elif ended.code:
            faults.append(f"exit {ended.code} after {what}: {ended.line}")
            break
    if ended.code == 0 and done:
        count.ends += 1
        difference = work.differences(whole, folder)
        count.equal += not difference
        count.lost += work.lost(whole, folder)
        if difference:
            faults.append(f"{difference} differs after {what}")
    count.survived -= bool(ended.code)
    count.faults += [fault.replace(f"{place}/", "") for fault in faults]
    return done


def _planned(work: Work, seconds: float, kills: int, rng: random.Random) -> Kill:
    """A kill; together they reach the end of the work."""
    kind = rng.choice(("moment", "signal") if work.ranks else ("moment", "write", "signal"))
    number = rng.choice(SIGNALS) if kind == "signal" else signal.SIGKILL
    return Kill(number, rng.uniform(0, 1.5 * seconds / kills), change=rng.randint(1, 60) if kind == "write" else None)


def _problem(work: Work, kill: Kill, ended: Ended) -> str:
    """What is wrong with the end of a killed process; "" if nothing."""
    if kill.number == signal.SIGKILL or ended.code == -kill.number:  # SIGKILL, or a signal before it was caught
        return ""
    if ended.code != 128 + kill.number:
        return f"exit code {ended.code}, not {128 + kill.number}: {ended.line}"
    if ended.errors.count("\n") != 1 or "Interrupted." not in ended.errors:
        return f"not one line: {ended.errors[-300:]!r}"
    return ""
