"""The page of `benchmarks.soak`: docs/reliability.md."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.soak_damage import OUTCOMES
from contseg.sweeps.page import NOTES

WIDTH = 118


def page(results: Mapping[str, Any], notes: str = "\n") -> str:
    """The page as Markdown.

    Args:
        notes: written by hand, kept from the page before.
        results: by part: `kills`, `damages`, `inputs`, `cost`, and `origin`; missing parts are left out.
    """
    parts = {"kills": _kills, "damages": _damages, "inputs": _inputs, "cost": _cost}
    sections = [make(results[name]) for name, make in parts.items() if name in results]
    return "\n".join(["# Reliability\n", _head(results), *sections, f"## Notes\n\n{NOTES[0]}{notes}{NOTES[1]}\n"])


def _head(results: Mapping[str, Any]) -> str:
    made = results.get("origin", {})
    facts = {
        "command": "`make soak`",
        "commit": made.get("commit", "-"),
        "machine": f"{made.get('cpu', '-')}, {made.get('cores', '-')} cores",
        "seed": made.get("seed", "-"),
    }
    text = (
        "This page is generated; only the notes are written by hand. Tiny networks train on generated digits; their\n"
        "processes are real."
    )
    return f"{text}\n\n| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts.items())


def _kills(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per setup."""
    rows = []
    for name, count in counts.items():
        kinds = count["kills"]
        tried = sum(kinds.values())
        ends = f"{count['equal']} of {count['ends']}"
        rows.append([name, *kinds.values(), f"{count['survived']} of {tried}", ends, count["lost"]])
    every = [sum(sum(count["kills"].values()) for count in counts.values())]
    every += [sum(count[key] for count in counts.values()) for key in ("survived", "equal", "ends", "lost")]
    tried, survived, equal, ends, lost = every
    text = _filled(
        f"{survived} of {tried} kills were survived, {equal} of {ends} works ended with files equal bit for bit to those of"
        f" an undisturbed one, {lost} bytes were lost. A work is killed up to five times, at random moments and"
        " immediately before random changes of its files, by SIGKILL, SIGTERM, SIGINT, SIGHUP and SIGUSR1, and repeated"
        " until it ends. Compared are weights, state of the method, matrices, predictions, metrics, plan and recipe of a"
        " run, and all files of other commands. Bytes are lines of `metrics.jsonl` and notes of the user in the folder."
    )
    titles = ("work", "SIGKILL at a moment", "SIGKILL at a write", "other signals", "survived", "equal ends", "bytes lost")
    faults = [f"{name}: {text}" for name, count in counts.items() for text in count["faults"]]
    return f"## Kills\n\n{text}\n\n{_table(titles, rows)}{_listed(faults)}"


def _damages(rows: Sequence[Mapping[str, str]]) -> str:
    """A row per file."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        counts.setdefault((row["place"], row["file"]), Counter())[row["outcome"]] += 1
    total = Counter(row["outcome"] for row in rows)
    harms = list(dict.fromkeys(row["harm"] for row in rows))
    text = _filled(
        f"{len(rows)} damages: {total['recovered']} recovered with equal results, {total['refused']} refused in one line"
        f" that names the file, {total['harmless']} harmless (nothing that is computed reads the file), {total['fault']}"
        f" faults. Each file is damaged in {len(harms)} ways ({', '.join(harms)}). Then `table`, `evaluate` and `report`"
        " show a finished run and it is resumed; an interrupted run is resumed, and a new run uses the cache. A fault is a"
        " silently different result, a traceback, or an error that does not name the file."
    )
    lines = [
        [place, f"`{name}`", sum(found.values()), *(found[one] for one in OUTCOMES)]
        for (place, name), found in counts.items()
    ]
    faults = [f"{row['place']}, {row['file']}, {row['harm']}: {row['note']}" for row in rows if row["outcome"] == "fault"]
    return f"## Damaged files\n\n{text}\n\n{_table(('of', 'file', 'tried', *OUTCOMES), lines)}{_listed(faults)}"


def _inputs(counts: Mapping[str, Mapping[str, int]]) -> str:
    text = _filled(
        "Tests with one wrong or hostile input each. Wrong input must end in one line that names the key or file; hostile"
        " files are refused in one line or shown to be harmless."
    )
    rows = [[title, found["passed"], found["failed"]] for title, found in counts.items()]
    return f"## Bad input and hostile files\n\n{text}\n\n{_table(('cases', 'passed', 'failed'), rows)}"


def _cost(cost: Mapping[str, Any]) -> str:
    share = 100 * cost["spent"] / cost["seconds"]
    text = _filled(
        f"Checksums, the manifest and syncs to the disk take {1000 * cost['spent']:.0f} ms of an epoch of the demo"
        f" (`{cost['recipe']}`, {cost['seconds']:.1f} s, mean of {cost['epochs']} epochs): {share:.1f} %."
    )
    return f"## Cost\n\n{text}\n"


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def _table(titles: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def _listed(faults: Sequence[str]) -> str:
    """Faults as a list; "" for none."""
    lines = (textwrap.fill(f"* {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False) for text in faults)
    return "\nFaults:\n\n" + "\n".join(lines) + "\n" if faults else ""
