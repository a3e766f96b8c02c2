"""The results page of a tuning: what was chosen, on which data, and what it reaches on other data."""

from collections.abc import Mapping

from contseg.sweeps.cells import Row
from contseg.sweeps.page import FIGURES, Results, differences, result_warnings, spread
from contseg.sweeps.study import Study
from contseg.sweeps.tune import REPORT, SEARCH, Tune, settings, trial_name

PAGE = "tune.md"
MARK = "This page of a tuning is generated."


def tune_page(tune: Tune, study: Study, searched: Results, rows: Mapping[str, Row], reported: Results, command: str) -> str:
    """The page as Markdown.

    Args:
        searched, reported: finished runs of the trials, and of the rows that are reported.
        rows: the recipe, and the one with the chosen values unless they are the same.
        command: that repeats it.
    """
    parts = [
        f"# Tuning of {tune.recipe}\n",
        f"{MARK}\n",
        _setup(tune, study, searched, reported, command),
        "## Fairness\n",
        "".join(f"{line}\n" for line in fairness(tune, searched, reported)),
        "## Chosen values\n",
        _chosen(tune, study),
        f"## On the reported data: {tune.reported.title}\n",
        "mIoU in % after the last step, background not counted: mean ± standard deviation (n - 1) over n finished runs,"
        " seeds x orders.\n",
        _reported(rows, reported),
        f"## The search: {tune.searched.title}\n",
        f"Means over the runs of each trial; the search is for the highest mean of *{tune.goal}*.\n",
        _trials(tune, study, searched),
    ]
    return "\n".join(parts)


def fairness(tune: Tune, searched: Results, reported: Results) -> list[str]:
    """What the choice rests on, a line per sentence."""
    lines = [
        f"The values were chosen by the runs in `{SEARCH}` alone, on {tune.searched.title}.",
        f"No run on {tune.reported.title} was used to choose them; the runs in `{REPORT}` begin when the search has ended.",
    ]
    if tune.shares_images():
        lines.append(
            "Both have the same images in other class orders, so the test images of the report were also scored in the"
            " search."
        )
    plans = {result.plan for result in searched.values()} & {result.plan for result in reported.values()}
    if plans:
        lines.append(f"**Warning**: plan {', '.join(sorted(plans))} is in both, so the reported data was used to choose.")
    return lines


def _setup(tune: Tune, study: Study, searched: Results, reported: Results, command: str) -> str:
    states = [study.state(number) for number in study.values()]
    seconds = [sum(result.seconds for result in results.values()) for results in (searched, reported)]
    facts = {
        "command": f"`{command}`",
        "searched on": tune.searched.title,
        "reported on": tune.reported.title,
        "trials": f"{len(states)} of {tune.trials}, {states.count('failed')} failed, in rounds of {tune.round}",
        "sampler": f"TPE of Optuna, seed {tune.sampler_seed}",
        "runs": f"{len(searched)} of the search, {len(reported)} reported",
        "time": f"{seconds[0] / 60:.0f} min of one core for the search, {seconds[1] / 60:.0f} min for the report",
    }
    warnings = [f"\n**Warning**: {text}.\n" for results in (searched, reported) for text in result_warnings(results)]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {text} |\n" for name, text in facts.items()) + "".join(warnings)


def _chosen(tune: Tune, study: Study) -> str:
    best = study.best()
    if best is None:
        return "No trial finished.\n"
    values, own = study.values()[best], tune.own_values() or {}
    lines = ["| key | range | recipe | chosen |", "|---|---|---|---|"]
    lines += [f"| {key} | `{text}` | {own.get(key, '-')} | {values[key]} |" for key, text in tune.space.items()]
    return "\n".join([f"{trial_name(best)} of {len(study.values())}: `{' '.join(settings(values))}`\n", *lines, ""])


def _reported(rows: Mapping[str, Row], results: Results) -> str:
    base = next(iter(rows))
    lines = [f"| values | {' | '.join(FIGURES)} | all, against the recipe | n |", "|" + "---|" * (len(FIGURES) + 3)]
    for name, row in rows.items():
        found = [results[name, run].figures for run in row.runs() if (name, run) in results]
        means = [spread([value for figures in found if (value := figures[key]) is not None]) for key in FIGURES]
        gain = "-" if name == base else spread(differences(results, name, base, "all"), "+")
        lines.append(
            f"| {'of the recipe' if name == base else f'chosen ({name})'} | {' | '.join(means)} | {gain} | {len(found)} |"
        )
    return "\n".join([*lines, ""])


def _trials(tune: Tune, study: Study, results: Results) -> str:
    scores = study.scores()
    lines = [
        f"| trial | {' | '.join(tune.space)} | {' | '.join(FIGURES)} | n |",
        "|" + "---|" * (len(tune.space) + len(FIGURES) + 2),
    ]
    for number, values in sorted(study.values().items(), key=lambda item: (-scores.get(item[0], float("-inf")), item[0])):
        found = [result.figures for (name, _), result in results.items() if name == trial_name(number)]
        figures = [spread([value for one in found if (value := one[key]) is not None]) for key in FIGURES]
        state = study.state(number)
        title = f"{number}" if state == "finished" else f"{number} ({state})"
        lines.append(
            f"| {title} | {' | '.join(str(values[key]) for key in tune.space)} | {' | '.join(figures)} | {len(found)} |"
        )
    return "\n".join([*lines, ""])
