"""The table of what works: system x dataset x protocol, from the packaged recipes.

python -m benchmarks.works_table    # rewrites the table between its markers in docs/what-works.md
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from contseg.recipes.catalogue import Entry, catalogue
from contseg.recipes.read import is_of_published_data

BEGIN, END = "<!-- works -->", "<!-- /works -->"


def works_table() -> str:
    """What works, as Markdown: system x dataset x protocol. Systems with the same protocols share a line.

    Example:
        >>> print(works_table().splitlines()[0])
        | system | dataset | splits and settings | network |
    """
    lines: dict[tuple[str, str, str], list[str]] = {}
    entries = [entry for entry in catalogue() if is_of_published_data(entry.name)]

    def key(entry: Entry) -> tuple[str, str, bool]:
        return entry.system, entry.dataset, entry.name.endswith("_vitb")

    for (system, dataset, _), group in groupby(sorted(entries, key=key), key=key):
        own = list(group)
        lines.setdefault((dataset, _protocols(own), _networks(own)), []).append(_label(system, own))
    head = ["| system | dataset | splits and settings | network |", "|---|---|---|---|"]
    rows = sorted((", ".join(systems), *line) for line, systems in lines.items())
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _label(system: str, entries: Sequence[Entry]) -> str:
    if entries[0].name.endswith("_vitb"):
        return f"{system} (`_vitb`)"
    return f"{system} (also `_released`)" if any(entry.released for entry in entries) else system


def _protocols(entries: Sequence[Entry]) -> str:
    """Splits by setting: `15-5, 15-1 (disjoint, overlapped); 5-3 (overlapped)`."""
    settings: dict[str, list[str]] = {}
    for entry in entries:
        here = settings.setdefault(entry.split, [])
        if entry.setting and entry.setting not in here:
            here.append(entry.setting)
    splits: dict[str, list[str]] = {}
    for split, names in settings.items():
        splits.setdefault(", ".join(sorted(names)), []).append(split)
    return "; ".join(", ".join(members) + (f" ({names})" if names else "") for names, members in splits.items())


def _networks(entries: Sequence[Entry]) -> str:
    """Networks by backbone: `fcn, psp on resnet50-d8`."""
    heads: dict[str, list[str]] = {}
    for entry in entries:
        head, _, backbone = entry.network.partition("_")
        here = heads.setdefault(backbone, [])
        if head not in here:
            here.append(head)
    return "; ".join(f"{', '.join(sorted(names))} on {backbone}" for backbone, names in heads.items())


def with_table(text: str) -> str:
    """The page with the table as it should be.

    Example:
        >>> with_table("a\\n<!-- works -->old<!-- /works -->\\nb").splitlines()[2]
        '| system | dataset | splits and settings | network |'
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{works_table()}\n{END}{after}"


def main() -> None:
    path = Path("docs/what-works.md")
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
