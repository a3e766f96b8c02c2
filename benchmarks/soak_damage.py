"""Damage every file of runs and of the cache in several ways, and check that nothing is silently wrong afterwards."""

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.soak_kills import BASE, run_differences
from benchmarks.soak_process import Ended, Kill, contseg
from contseg.errors import ContsegError

RECIPE = ("digits/plop_5-1", *BASE, "training.epochs=3")
OUTCOMES = ("recovered", "refused", "harmless", "fault")
"""The run ended with equal results, and the file was reported or made again; one line names the file; results are equal
without the file; wrong results, a traceback, or a line without the file."""
Harm = Callable[[Path, Path, random.Random], None]


def flip(path: Path, foreign: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, foreign: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(1, path.stat().st_size)])


def empty(path: Path, foreign: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def replace(path: Path, foreign: Path, rng: random.Random) -> None:
    shutil.copyfile(foreign, path)


def delete(path: Path, foreign: Path, rng: random.Random) -> None:
    path.unlink()


def add_nuls(path: Path, foreign: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + bytes(512))


HARMS: dict[str, Harm] = {
    "one bit flipped": flip,
    "cut off": truncate,
    "empty": empty,
    "file of another run": replace,
    "deleted": delete,
    "NULs at the end": add_nuls,
}


def damage_all(out: Path, seed: int, say: Callable[[str], None]) -> list[dict[str, str]]:
    """Damage each file in each way; returns a row for every case: place, file, harm, outcome and note."""
    shutil.rmtree(out, ignore_errors=True)
    whole, other, begun = out / "whole", out / "other", out / "begun"
    _trained(["train", *RECIPE, "--out", whole / "run"], whole)
    _trained(["train", *RECIPE, "training.seed=1", "--out", other / "run"], other)
    before = begun / "run" / "steps" / "01" / "state.before.pt"
    ended = contseg(["train", *RECIPE, "--out", begun / "run", "--no-cache"], begun, kill=Kill(signal.SIGTERM, when=before))
    if ended.code != 128 + signal.SIGTERM:
        raise ContsegError(f"soak: the training was not interrupted ({ended.code}: {ended.line})")
    cached = _cached(out)
    rows, expected = [], _expected(whole, out / "trial")
    for place, source in (("finished run", whole), ("interrupted run", begun), ("cache of step 0", cached)):
        check = _check_cache if place.startswith("cache") else _check_run
        for path, foreign in _files(source / ("cache/steps" if check is _check_cache else "run"), other):
            name = path.relative_to(source).as_posix()
            for title, harm in HARMS.items():
                rng = random.Random(f"{seed} {place} {name} {title}")
                damage = partial(harm, out / "trial" / name, foreign, rng)
                outcome, note = check(source, whole, out / "trial", name, damage, expected)
                rows.append({"place": place, "file": _short(name), "harm": title, "outcome": outcome, "note": note})
                if outcome == "fault":
                    say(f"{place}, {name}, {title}: {note}")
            say(f"{place}, {name}: {[row['outcome'] for row in rows[-len(HARMS) :]]}")
    return rows


def _trained(words: list[object], place: Path) -> None:
    ended = contseg(words, place)
    if ended.code:
        raise ContsegError(f"soak: the training failed: {ended.line}")


def _cached(out: Path) -> Path:
    """A cache with step 0, filled where it will be damaged, as the key of a step contains the place of its data."""
    trial = out / "trial"
    _trained(["train", *RECIPE, "--out", trial / "run"], trial)
    shutil.copytree(trial / "cache/steps", out / "cached/cache/steps")
    shutil.rmtree(trial / "run")
    return out / "cached"


def _files(folder: Path, other: Path) -> Iterator[tuple[Path, Path]]:
    """The files of a folder, each with the one of the same name of another run."""
    theirs = sorted(path for path in other.rglob("*") if path.is_file())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        ends = ("/".join(path.parts[-2:]), path.name, path.suffix, "")
        yield path, next(found for end in ends for found in theirs if found.as_posix().endswith(end))


def _short(name: str) -> str:
    """A name without parts that differ between runs."""
    parts = Path(name).parts
    if parts[0] == "cache":
        return parts[-1] if parts[1] == "steps" else "/".join(parts[1:2])
    return "tensorboard/" if parts[1] == "tensorboard" else "/".join(parts[1:])


def _reads(trial: Path) -> list[list[object]]:
    """Commands that show a run."""
    run = trial / "run"
    steps = [["evaluate", run, "--step", step] for step in (0, 1)]
    return [["table", run], *steps, ["report", run, "--out", trial / "page.html"]]


def _shown(words: list[object], ended: Ended) -> str:
    """What a command shows: its output, or the page that it wrote."""
    return Path(str(words[-1])).read_text(encoding="utf-8") if words[0] == "report" else ended.output


def _expected(whole: Path, trial: Path) -> list[str]:
    """What the commands show of the undamaged run, in the place of the damaged ones."""
    shutil.copytree(whole / "run", trial / "run")
    return [_shown(words, contseg(words, trial)) for words in _reads(trial)]


def _check_run(
    source: Path, whole: Path, trial: Path, name: str, harm: Callable[[], None], expected: list[str]
) -> tuple[str, str]:
    """Show a damaged run with several commands, and resume it."""
    faults, refused = [], False
    shutil.rmtree(trial / "run", ignore_errors=True)
    shutil.copytree(source / "run", trial / "run")
    harm()
    damaged = _content(trial / name)
    for words, want in zip(_reads(trial), expected, strict=True) if source == whole else ():
        ended = contseg(words, trial)
        if problem := _refusal(ended, name):
            faults.append(f"{words[0]}: {problem}")
        elif ended.code == 0 and (shown := _shown(words, ended)) != want and not _named(name, shown):
            faults.append(f"{words[0]}: silently different")
        refused |= ended.code != 0
    ended = contseg(["train", "--resume", trial / "run", "--no-cache"], trial)
    return _resumed(ended, whole, trial, name, damaged, refused, faults)


def _check_cache(
    source: Path, whole: Path, trial: Path, name: str, harm: Callable[[], None], expected: list[str]
) -> tuple[str, str]:
    """Train with a damaged file in the cache."""
    for part in ("run", "cache/steps"):
        shutil.rmtree(trial / part, ignore_errors=True)
    shutil.copytree(source / "cache/steps", trial / "cache/steps")
    harm()
    damaged = _content(trial / name)
    return _resumed(contseg(["train", *RECIPE, "--out", trial / "run"], trial), whole, trial, name, damaged, False, [])


def _resumed(
    ended: Ended, whole: Path, trial: Path, name: str, damaged: bytes | None, refused: bool, faults: list[str]
) -> tuple[str, str]:
    """The outcome of a case, and a note."""
    if problem := _refusal(ended, name):
        faults.append(f"train: {problem}")
    elif ended.code == 0:
        difference = run_differences(whole / "run", trial / "run")
        marked = difference in (Path(name).name, "inputs.json") and _named(
            name, ended.output
        )  # a mark, or notes of a recipe
        if refused and f"run/{difference}" == name:  # nothing that is left to train needs it
            return "refused", ""
        faults += [f"train: {difference} differs silently"] if difference and not marked else []
    if faults:
        return "fault", "; ".join(faults)
    if ended.code:
        return "refused", ended.line
    reported = _named(name, ended.output + ended.errors)
    restored = _content(trial / name) != damaged
    return ("recovered" if refused or reported or restored else "harmless"), ""


def _refusal(ended: Ended, name: str) -> str:
    """What is wrong with how a command refused a damaged file; "" if nothing, or if it did not refuse it."""
    if ended.code == 0:
        return "traceback" if "Traceback" in ended.errors else ""
    if ended.code != 2 or ended.errors.count("\n") != 1 or not ended.errors.startswith("error: "):
        return f"exit {ended.code}: {ended.line}"
    return "" if _named(name, ended.errors) else f"does not name the file: {ended.line}"


def _named(name: str, text: str) -> bool:
    """Whether a text names a file: a changed recipe by its keys, a foreign manifest by the files that do not fit it."""
    others = {"recipe.yaml": "changed since the run began", "manifest.json": "damaged"}
    return Path(name).name in text or others.get(Path(name).name, "\0") in text


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
