"""A run next to published numbers: the differences, and whether the numbers are comparable."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from contseg.differences import differences, differences_text
from contseg.engine.inputs import accepted_changes, marks
from contseg.engine.options import MACHINE_KEYS
from contseg.engine.panoptic_sums import panoptic_of
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.metrics import run_figures
from contseg.evaluation.remarks import run_remarks
from contseg.recipes.published import COUNTED, FIGURES, MASK_NETWORK, PublishedRow, network_key, published_for
from contseg.recipes.read import is_of_published_data, read_recipe, read_run, recipe_names
from contseg.recipes.recipe import Recipe
from contseg.report.table import Block, Line, remark_lines

Changes = dict[str, tuple[Any, Any]]
"""Key to its value in the packaged recipe and in this one."""

PROTOCOL = ("data.dataset", "data.options", "data.test_crop", "scenario", "evaluation")
NO_PROTOCOL = ("scenario.saliency", "evaluation.windows")
"""Exceptions: a folder on this machine, and the number of windows that fit its memory."""

NO_NUMBER = (
    "name", "note", "links", "based_on", "plugins", "data.path", "backbone_weights", "evaluation.windows", "training.seed",
    "training.channels_last", "training.compile", "training.deterministic", "training.features",
    *(f"training.{key}" for key in sorted(MACHINE_KEYS)),
)  # fmt: skip
"""Keys that may change without a remark. Weights of the backbone have a remark of their own."""


@dataclass(frozen=True)
class Comparison:
    """A run next to one published row.

    Attributes:
        row: the published numbers.
        run: `old`, `new` and `all` of the run in percent, mIoU or PQ as the row, with background if the row counts it; None
            if not measured.
        delta: run - published, None if one of the two is missing.
        warnings: other differences between the run and the published row.
        comparable: whether no difference in the protocol is known.
    """

    row: PublishedRow
    run: dict[str, float | None]
    delta: dict[str, float | None]
    warnings: tuple[str, ...]
    comparable: bool


def protocol_changes(recipe: Recipe) -> Changes:
    """Keys of the protocol in which a recipe differs from the packaged one that it is based on.

    Example:
        >>> protocol_changes(read_recipe("voc/plop_15-1_overlapped", ["scenario.setting=disjoint", "training.lr=0.1"]))
        {'scenario.setting': ('overlapped', 'disjoint')}
    """
    return {key: values for key, values in _changes(recipe).items() if _is_protocol(key)}


def other_changes(recipe: Recipe) -> Changes:
    """Other keys that affect numbers and in which a recipe differs from the packaged one that it is based on.

    Example:
        >>> recipe = read_recipe("voc/plop_15-1_overlapped", ["training.lr=0.1", "training.devices=2", "training.seed=1"])
        >>> other_changes(recipe)
        {'training.lr': (0.01, 0.1)}
    """
    return {key: values for key, values in _changes(recipe).items() if not _is_protocol(key)}


def comparability(recipe: Recipe) -> list[str]:
    """Why the numbers of a recipe are not comparable with published ones: a text per change of its protocol.

    Empty if they are comparable, and for recipes of your own data. A share of the data with published numbers
    (`scenario.ratio`) is not a change.

    Example:
        >>> comparability(read_recipe("voc/plop_15-1_overlapped", ["scenario.setting=disjoint"]))
        ['scenario.setting was overlapped, is disjoint']
        >>> comparability(read_recipe("digits/plop_5-1", ["scenario.setting=disjoint"]))
        []
    """
    base = packaged_recipe(recipe)
    if base is None or not is_of_published_data(base.name):
        return []
    changes = protocol_changes(recipe)
    if published_for(recipe):
        changes.pop("scenario.ratio", None)
    return [differences_text({key: values}) for key, values in changes.items()]


def warnings_for(recipe: Recipe, row: PublishedRow) -> list[str]:
    """The differences between a recipe and a published row, in words; those that make them incomparable come first.

    Example:
        >>> from contseg.recipes.published import published_for
        >>> recipe = read_recipe("voc/plop_15-1_overlapped", ["backbone_weights=R101.pth", "data.test_crop=null"])
        >>> for text in warnings_for(recipe, published_for(recipe)[0]):
        ...     print(text)
        the recipe was changed: data.test_crop was 512, is none
        whole images are scored; published: crop 512
    """
    return [*_protocol_differences(recipe, row), *_reservations(recipe, row)]


def compare(recipe: Recipe, summary: Mapping[str, Any]) -> list[Comparison]:
    """A run next to every published row that matches its recipe.

    Args:
        recipe: of the run.
        summary: metrics of the run in percent, as in summary.json; PQ, where it was measured, under `pq`.
    """
    found = []
    for row in published_for(recipe):
        own = _figures(summary, row)
        published = {key: getattr(row, key) for key in FIGURES}
        delta = {
            key: None if value is None or published[key] is None else round(value - published[key], 4)
            for key, value in own.items()
        }
        comparable = not any(_protocol_differences(recipe, row))
        found.append(Comparison(row, own, delta, tuple(warnings_for(recipe, row)), comparable))
    return found


def _figures(summary: Mapping[str, Any], row: PublishedRow) -> dict[str, float | None]:
    """The numbers of a run that a row is about."""
    if row.task == "pq":
        return {key: summary.get("pq", {}).get(key) for key in FIGURES}
    counted = "_with_background" if row.background == "yes" else ""
    return {key: summary[key if key == "new" else key + counted] for key in FIGURES}


def notes_on(comparisons: Sequence[Comparison]) -> list[str]:
    """The warnings of a run's comparisons, each once; with its sources, unless it applies to all of them.

    Example:
        >>> recipe = read_recipe("voc/plop_15-1_overlapped")
        >>> figures = dict.fromkeys(("old", "new", "all", "old_with_background", "all_with_background"))
        >>> notes_on(compare(recipe, figures))
        ['the backbone was initialised at random, the published one with ImageNet weights (backbone_weights)']
    """
    about: dict[str, list[str]] = {}
    for one in comparisons:
        for warning in one.warnings:
            about.setdefault(warning, []).append(one.row.source)
    return [
        warning if len(sources) == len(comparisons) else f"{'; '.join(sources)}: {warning}"
        for warning, sources in about.items()
    ]


def packaged_recipe(recipe: Recipe) -> Recipe | None:
    """The packaged recipe that a recipe is based on; None without one, or if it is no longer in the package."""
    return _read_packaged(recipe.based_on) if recipe.based_on else None


def recorded_recipe(run: Run) -> Recipe | None:
    """The recipe of a run, or None if it cannot be read here; the run is not compared then.

    Raises:
        ContsegError: the file is not the one that the run wrote.
    """
    path = run.folder / "recipe.yaml"
    try:
        return read_run(path)
    except ContsegError:
        if run.manifest.is_sound(path):
            return None
        raise


def run_names(runs: Sequence[Run]) -> list[str]:
    """Folder names, with as many parent folders as make them unique.

    Example:
        >>> run_names([Run("here/plop"), Run("there/plop")])
        ['here/plop', 'there/plop']
    """
    places = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, places))):
        names = ["/".join(parts[-depth:]) for parts in places]
        if len(set(names)) == len(names):
            break
    return names


def compare_run(run: Run) -> list[Comparison]:
    """A run next to published numbers; empty if it is not finished or nothing was published.

    A run that was resumed with changes is not comparable.
    """
    recipe, summary = recorded_recipe(run), run.summary()
    found = compare(recipe, summary) if recipe and summary else []
    return with_marks(found, [run])


def with_marks(comparisons: Sequence[Comparison], runs: Sequence[Run]) -> list[Comparison]:
    """Comparisons of runs, or of their mean, with the runs' `marks`; not comparable if one was resumed with changes."""
    warnings = tuple(dict.fromkeys(text for run in runs for text in marks(run)))
    changed = any(map(accepted_changes, runs))
    return [
        replace(one, warnings=(*warnings, *one.warnings), comparable=one.comparable and not changed) for one in comparisons
    ]


def protocol_of(run: Run) -> str:
    """The protocol of a run in a few words; runs with the same words share a table."""
    recipe = recorded_recipe(run)
    if recipe is None:
        plan = run.require_plan()
        return f"{plan['dataset']} {plan['split']} {plan['setting']}"
    scenario = recipe.scenario
    split = scenario.scored_as or scenario.split
    how = "by domain" if scenario.by == "domain" else "lists" if scenario.lists else scenario.setting
    words = [recipe.data.dataset, split] + ([how] if split != "offline" else [])
    words += [f"order {scenario.order}"] if scenario.order != "natural" else []
    words += [f"domains {', '.join(scenario.domains)}"] if scenario.domains else []
    words += [f"ratio {scenario.ratio}"] if scenario.ratio < 1 else []
    words += [f"memory {scenario.memory.size}"] if scenario.memory else []
    return " ".join(words)


def block_of(run: Run, name: str) -> Block:
    """The table rows of a run and of the published numbers next to it; with and without background if both are needed.

    Args:
        name: name of the run in the table.
    """
    recipe, summary = recorded_recipe(run), run.summary()
    reasons = comparability(recipe) if recipe else []
    warnings = [f"not comparable with published numbers: {'; '.join(reasons)}"] if reasons else []
    warnings += marks(run)
    if summary is None:
        confusions = run.confusions()
        measured = confusions, run.groups(), run.has_background()
        figures = run_figures(*measured)
        shown = {key: None if figures[key] is None else 100 * figures[key] for key in FIGURES}
        last, steps = len(confusions) - 1, len(run.require_plan()["steps"])
        state = f"not finished: the numbers are those after step {last} of 0 to {steps - 1}; not compared"
        if last == steps - 1:
            state = (
                f"summary.json is missing, so nothing is compared; make it again with: contseg train --resume {run.folder}"
            )
        notes = (state, *warnings, *remark_lines(run_remarks(*measured, *run.tested()), FIGURES))
        panoptic = panoptic_of(run)
        quality = quality_of({key: _percents(panoptic[key]) for key in ("pq", "sq", "rq")}) if panoptic else {}
        return Block(name, (Line("unfinished", COUNTED["no"], shown, notes=notes, quality=quality),), notes)
    remarks = remark_lines(summary.get("notes", {}), FIGURES)
    comparisons = compare_run(run)
    figures = {key: summary[key] for key in FIGURES}
    own = Line("run", COUNTED["no"], figures, notes=(*warnings, *remarks), quality=quality_of(summary))
    return Block(name, (own, *published_lines(comparisons)), (*(notes_on(comparisons) or warnings), *remarks))


def published_lines(comparisons: Sequence[Comparison]) -> list[Line]:
    """The table rows next to that of a run: its numbers with background, if a published row counts it; published rows."""
    with_background = [one.run for one in comparisons if one.row.background == "yes" and one.row.task == "miou"]
    lines = [Line("run", COUNTED["yes"], figures) for figures in with_background[:1]]
    for one in comparisons:
        row, published, delta = one.row, {key: getattr(one.row, key) for key in FIGURES}, one.delta
        quality: dict[str, float | None] = {}
        if row.task == "pq":
            quality, delta = ({f"PQ {key}": value for key, value in each.items()} for each in (published, delta))
            published = dict.fromkeys(FIGURES)
        lines.append(
            Line(row.certainty, COUNTED[row.background], published, delta, one.comparable, row.source, one.warnings, quality)
        )
    return lines


def quality_of(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns `QUALITY` of a summary in percent; {} where panoptic quality was not measured."""
    if "pq" not in summary:
        return {}
    found = {f"PQ {key}": summary["pq"][key] for key in FIGURES}
    return found | {name.upper(): summary[name]["all"] for name in ("sq", "rq")}


def _percents(means: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: None if means[key] is None else 100 * means[key] for key in FIGURES}


@cache
def _read_packaged(name: str) -> Recipe | None:
    return read_recipe(name) if name in recipe_names() else None


def _changes(recipe: Recipe) -> Changes:
    base = packaged_recipe(recipe)
    if base is None:
        return {}
    unused = () if _draws(base) or _draws(recipe) else ("scenario.seed",)
    return {
        key: values
        for key, values in differences(base.model_dump(mode="json"), recipe.model_dump(mode="json")).items()
        if not _under(key, NO_NUMBER + unused) and any(value not in (None, {}) for value in values)
    }


def _draws(recipe: Recipe) -> bool:
    """Whether the selection of images depends on `scenario.seed`."""
    scenario = recipe.scenario
    return scenario.validation > 0 or (scenario.ratio < 1 and scenario.ratio_choice == "random")


def _is_protocol(key: str) -> bool:
    return _under(key, PROTOCOL) and not _under(key, NO_PROTOCOL)


def _under(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)


def _protocol_differences(recipe: Recipe, row: PublishedRow) -> Iterator[str]:
    """Differences in scenario and evaluation."""
    scenario, evaluation = recipe.scenario, recipe.evaluation
    changed = comparability(recipe)
    if changed:
        yield f"the recipe was changed: {'; '.join(changed)}"
    if row.setting and row.setting != scenario.setting:
        yield f"the setting is {scenario.setting}; published: {row.setting}"
    if row.policy and row.policy != scenario.policy:
        yield f"the label policy is {scenario.policy}; published: {row.policy}"
    test = f"crop {recipe.data.test_crop}" if recipe.data.test_crop else "whole"
    if row.test and row.test != test:
        yield f"{test.replace('whole', 'whole images')} {'are' if test == 'whole' else 'is'} scored; published: {row.test}"
    several = any(scale != 1 for scale in evaluation.scales)
    view = {(False, False): "single", (False, True): "flip", (True, False): "ms", (True, True): "ms+flip"}
    if row.inference != view[several, evaluation.flip]:
        yield f"inference is {view[several, evaluation.flip]}; published: {row.inference}"
    if row.background == "yes" and scenario.ignore_test_background:
        yield "the published mean counts background, which this run does not score (scenario.ignore_test_background)"


def _reservations(recipe: Recipe, row: PublishedRow) -> Iterator[str]:
    """Remarks that qualify the difference between two numbers."""
    if not row.background:
        yield "unknown whether the published mean counts background; that of the run does not"
    if row.network == MASK_NETWORK:
        yield f"published with Mask2Former; the network of this run is {network_key(recipe)}"
    if row.setting == "partitioned":
        yield "the published lists were drawn once; setting partitioned follows their rule, but has other images"
    if row.dataset == "isprs" and not recipe.scenario.domains:
        yield "published on Potsdam alone; scenario.domains=[potsdam] leaves Vaihingen out where the folder contains both"
    if packaged_recipe(recipe) is None:
        yield "the recipe is not based on a packaged one, so only the protocol in the table was checked"
    changed = other_changes(recipe)
    if changed:
        yield f"the recipe was also changed outside the protocol: {differences_text(changed)}"
    if recipe.backbone_weights is None and recipe.start_from is None:
        yield "the backbone was initialised at random, the published one with ImageNet weights (backbone_weights)"
