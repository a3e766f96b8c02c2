"""The trials of a tuning: which values come next, and what they reached; a journal of Optuna in the folder."""

import importlib.util
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contseg.atomic import writable
from contseg.errors import ContsegError
from contseg.sweeps.space import Between, Range
from contseg.sweeps.tune import Tune, Values

STUDY = "study.log"
"""The journal."""
NAME = "contseg"
"""Of the study in it."""
RANDOM = 10
"""Trials with random values, before the sampler uses results."""

State = Literal["waiting", "finished", "failed"]


def require_optuna() -> None:
    """Raise ContsegError unless Optuna is installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ContsegError("tune: optuna is not installed; pip install 'contseg[tune]'")


class Study:
    """The trials of a tuning, in rounds.

    The values of a trial follow from the description, its number, and the results of earlier rounds alone. So a tuning that
    was killed, or that is continued with more trials, has the same trials as an undisturbed one.

    Args:
        tune: the description.
        folder: of the journal; one process at a time may use it.
    """

    def __init__(self, tune: Tune, folder: Path):
        optuna = _optuna()
        self._tune, path = tune, folder / STUDY
        with writable(path):
            folder.mkdir(parents=True, exist_ok=True)
            _cut_to_whole_lines(path)
            try:
                self._study = optuna.create_study(
                    storage=_storage(path), study_name=NAME, direction="maximize", load_if_exists=True
                )
            except (ValueError, KeyError) as error:
                raise ContsegError(
                    f"{path}: not a journal of Optuna ({' '.join(str(error).split())[:80]}); restore it, or choose another"
                    " folder with --out"
                ) from None
        self._path = path

    def round(self) -> dict[int, Values]:
        """Number to values of the trials that are trained next: those of the current round that have no result.

        A new round begins when the one before has results; empty if there are enough trials.
        """
        size, there = self._tune.round, len(self._trials())
        current = min(self._waiting(), default=there)
        for number in range(there, min((current // size + 1) * size, self._tune.trials)):
            self._append(number)
        return {number: self.values()[number] for number in self._waiting()}

    def _waiting(self) -> list[int]:
        return [trial.number for trial in self._trials() if self.state(trial.number) == "waiting"]

    def _append(self, number: int) -> None:
        """Write a trial; one line of the journal, so that a killed process leaves all of it or nothing."""
        optuna = _optuna()
        values = suggested(self._tune, number, self._trials())
        with writable(self._path):
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=dict(values),
                    distributions=distributions(self._tune.ranges),
                )
            )

    def tell(self, number: int, score: float | None) -> None:
        """Record the result of a trial; None if it failed."""
        optuna = _optuna()
        with writable(self._path):
            if score is None:
                self._study.tell(number, state=optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(number, score)

    def _trials(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def values(self) -> dict[int, Values]:
        """Number to values of all trials."""
        return {trial.number: dict(trial.params) for trial in self._trials()}

    def state(self, number: int) -> State:
        """Of a trial."""
        name = self._trials()[number].state.name
        return {"COMPLETE": "finished", "FAIL": "failed"}.get(name, "waiting")  # type: ignore[return-value]

    def scores(self) -> dict[int, float]:
        """Number to score of the trials that finished."""
        return {trial.number: trial.value for trial in self._trials() if self.state(trial.number) == "finished"}

    def best(self) -> int | None:
        """The number of the trial with the highest score, the first of equals; None if none finished."""
        scores = self.scores()
        return min(scores, key=lambda number: (-scores[number], number)) if scores else None


def suggested(tune: Tune, number: int, trials: Iterable[Any]) -> dict[str, Any]:
    """The values of a trial.

    The first one has those of the recipe, if they are in their ranges. The others are suggested by TPE with a seed of their
    own, from the results of earlier rounds, and away from the trials of the same round.

    Args:
        trials: of Optuna, at least all with a smaller number.
    """
    if number == 0 and (own := tune.own_values()) is not None:
        return own
    optuna = _optuna()
    begun = number // tune.round * tune.round
    seed = int(np.random.SeedSequence([tune.sampler_seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # options that are experimental in some versions
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM, multivariate=True, constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for trial in trials:
        if trial.number < number:
            known = trial.number < begun
            study.add_trial(
                optuna.trial.create_trial(
                    state=trial.state if known else optuna.trial.TrialState.RUNNING,
                    value=trial.value if known else None,
                    params=trial.params,
                    distributions=trial.distributions,
                )
            )
    params = study.ask(distributions(tune.ranges)).params
    return {key: one.rounded(params[key]) for key, one in tune.ranges.items()}


def distributions(ranges: Mapping[str, Range]) -> dict[str, Any]:
    """The ranges as distributions of Optuna."""
    of = _optuna().distributions
    return {
        key: of.CategoricalDistribution(one.values)
        if not isinstance(one, Between)
        else (of.IntDistribution if one.whole else of.FloatDistribution)(one.low, one.high, log=one.log)
        for key, one in ranges.items()
    }


def _optuna() -> Any:
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(path: Path) -> Any:
    """The journal. Its own lock file would outlive a killed process; `tune.lock` protects the folder in its place."""
    storages = _optuna().storages
    return storages.JournalStorage(storages.journal.JournalFileBackend(str(path), lock_obj=_NoLock()))


class _NoLock:
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_to_whole_lines(path: Path) -> None:
    """Remove the last line if its write was cut off; the next one would be appended to it."""
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
