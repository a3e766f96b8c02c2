"""What the result of a run depends on: compared with the start of the run at a resume, and between the ranks of a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contseg.differences import differences, differences_text
from contseg.digest import file_sha256, sha256
from contseg.engine.code import sources_digest
from contseg.engine.job import Job, file_digest
from contseg.engine.options import MACHINE_KEYS
from contseg.engine.run import INPUTS, Run
from contseg.errors import ContsegError
from contseg.evaluation.confusion import IGNORED_WARNING
from contseg.scenarios.changes import is_comparable, plan_changes
from contseg.scenarios.plan import Plan

if TYPE_CHECKING:  # it takes a second to import
    from lightning_fabric import Fabric

SHOWN = 3
"""Number of differences of the data in an error."""
MACHINE = tuple(f"training.{key}" for key in sorted(MACHINE_KEYS))
RESTORE = "restore the file that this run wrote, or delete it to resume without a comparison, which marks the run"
FREE = ("name", "note", "links", "plugins", "based_on", "initial_weights", "data.path")
"""Keys of a recipe that are not compared: labels, and the place of the data, which is compared itself."""
FIXED = (
    "network", "method.name", "method.variant", "scenario.policy", "training.optimiser", "training.lr_factors",
    "training.lr_factors_later", "training.no_decay",
)  # fmt: skip
"""Keys that give a saved state its shape: other values cannot continue from it."""


@dataclass(frozen=True)
class Inputs:
    """What the result of a run depends on.

    Args:
        recipe: the resolved recipe.
        plan: the plan of the data, as in plan.json.
        code: digest of the sources that compute.
        torch: version of PyTorch.
        ranks: number of processes that train.
        weights: digests of the files in `backbone_weights` and `start_from`, if they exist.
    """

    recipe: dict[str, Any]
    plan: dict[str, Any]
    code: str
    torch: str
    ranks: int
    weights: dict[str, str]

    @classmethod
    def of(cls, job: Job, plan: Plan) -> "Inputs":
        """The inputs of a job.

        Args:
            plan: of the job's scenario.
        """
        files = {"backbone_weights": job.backbone_weights, "start_from": job.start_from}
        return cls(
            recipe=json.loads(json.dumps(job.recipe)),
            plan=json.loads(plan.to_json()),
            code=sha256(sources_digest(), *job.own_code())[:12],
            torch=torch.__version__,
            ranks=job.training.ranks,
            weights={key: digest for key, path in files.items() if path and (digest := _digest_of(path))},
        )

    def changes(self, now: "Inputs") -> list[str]:
        """List the differences to other inputs in words, the most important first; empty if there are none.

        Raises:
            KeyError, TypeError, AttributeError: `self` was read from a damaged file.
        """
        found = recipe_changes(self.recipe, now.recipe)
        changes = [differences_text(found)] if found else []
        data = plan_changes(self.plan, now.plan)
        changes += [*data[:SHOWN], *([f"{len(data) - SHOWN} more changes of the data"] if len(data) > SHOWN else [])]
        both = self.weights.keys() & now.weights.keys()
        changes += [f"the weights in {key} are others" for key in sorted(both) if self.weights[key] != now.weights[key]]
        changes += [f"PyTorch was {self.torch}, is {now.torch}"] if self.torch != now.torch else []
        changes += [f"the code was {self.code}, is {now.code}"] if self.code != now.code else []
        return changes + ([f"ranks were {self.ranks}, are {now.ranks}"] if self.ranks != now.ranks else [])

    def continues(self, now: "Inputs") -> bool:
        """Whether a saved state of these inputs can be continued with others: same network, method and classes."""
        keys = recipe_changes(self.recipe, now.recipe)
        learned, others = ([step["new_classes"] for step in one.plan["steps"]] for one in (self, now))
        return learned == others and not any(_under(key, FIXED) for key in keys)


def recipe_changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys that affect results and in which two recipes differ, with both values.

    Example:
        >>> recipe_changes({"name": "a", "training": {"lr": 0.1, "workers": 2}}, {"name": "b", "training": {"lr": 0.2}})
        {'training.lr': (0.1, 0.2)}
    """
    return {key: values for key, values in differences(one, other).items() if not _under(key, (*FREE, *MACHINE))}


def require_unchanged(run: Run, now: Inputs, accept: bool = False) -> str:
    """Raise ContsegError if the inputs of a run changed since it began; nothing is written.

    A finished run trains nothing more: only its recipe and its data are compared.

    Args:
        accept: accept changes with which the run can continue; see `record_inputs`.

    Returns:
        a line on what cannot be compared in a run of an earlier version, else "".

    Raises:
        ContsegError: the inputs changed, or plan.json or inputs.json is damaged.
    """
    if not _has_begun(run):
        return ""
    saved = _saved(run, now)
    changes = _changes(run, saved, now)
    if changes and accept and not saved.continues(now):
        raise ContsegError(
            f"{run.folder}: the run cannot continue with these changes: {'; '.join(changes)}; start another run with --out"
        )
    if changes and not accept:
        raise ContsegError(
            f"{run.folder}: changed since the run began: {'; '.join(changes)}; restore the old state, start another run with"
            " --out, or resume with --accept-changes, which marks the run"
        )
    if lost := _lost(run):
        return f"{run.folder}: {' and '.join(lost)} missing; nothing to compare with, so the run is marked"
    if (run.folder / INPUTS).is_file() and is_comparable(saved.plan):
        return ""
    return (
        f"{run.folder}: begun by an earlier version, which recorded less: changes of recipe and code, and of the data other"
        " than numbers of images and pixels, may not be detected"
    )


def record_inputs(run: Run, now: Inputs) -> None:
    """Write inputs.json and plan.json at the start of a run, and after changes were accepted, which the file lists."""
    changes = _changes(run, _saved(run, now), now) if _has_begun(run) else []
    accepted = _content(run).get("accepted", [])
    if changes:
        accepted = [*accepted, _mark(run, changes)]
    content = asdict(now) | {"accepted": accepted}
    plan = content.pop("plan")
    if changes or _lost(run) or not (run.folder / INPUTS).is_file():
        run.write_text(INPUTS, json.dumps(content, indent=1))
    if changes or run.plan() is None:
        run.write_text("plan.json", json.dumps(plan, indent=1))


def accepted_changes(run: Run) -> list[str]:
    """The changes with which a run was resumed, in words.

    Raises:
        ContsegError: inputs.json is damaged.
    """
    accepted = _content(run).get("accepted", [])
    return [f"resumed in step {one['step']} with changes: {'; '.join(one['changes'])}" for one in accepted]


def marks(run: Run) -> list[str]:
    """What tables and reports say about a run: its `accepted_changes`, and whether undecided pixels were not counted.

    Raises:
        ContsegError: inputs.json is damaged.
    """
    ignored = [IGNORED_WARNING] if ignores_undecided(_content(run).get("recipe", {})) else []
    return accepted_changes(run) + ignored


def ignores_undecided(recipe: Mapping[str, Any]) -> bool:
    """Whether there may be undecided pixels that are not counted, by the values of a recipe.

    Example:
        >>> head = {"name": "eomt", "decision": "owner"}
        >>> ignores_undecided({"network": {"head": head}, "evaluation": {"undecided": "ignored"}})
        True
    """
    network, evaluation = recipe.get("network", {}), recipe.get("evaluation", {})
    there = network.get("head", {}).get("decision", "einsum") != "einsum" and network.get("background") != "constant"
    return there and evaluation.get("undecided") == "ignored"


def require_agreement(fabric: "Fabric", run: Run, inputs: Inputs) -> None:
    """Raise ContsegError, on every rank, unless all ranks have the same inputs and read the same files of the run."""
    if fabric.world_size == 1:
        return
    last = run.last_begun()
    files = [run.folder / "steps" / f"{last:02d}" / "state.pt", run.segmenter_path(max(0, last - 1))]
    own = (inputs, [file_sha256(path) if path.is_file() else "" for path in files])
    every: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(every, own)
    for rank, (other, digests) in enumerate(every):
        changes = every[0][0].changes(other)
        if changes:
            raise ContsegError(
                f"rank {rank} differs from rank 0 (was: rank 0, is: rank {rank}): {'; '.join(changes)}; start all ranks with"
                " the same command, code and data"
            )
        if digests != every[0][1]:
            raise ContsegError(
                f"{run.folder}: rank {rank} reads other files than rank 0; all nodes must share the folder of the run"
            )


def _has_begun(run: Run) -> bool:
    return bool(_lost(run)) or any((run.folder / name).is_file() for name in (INPUTS, "plan.json"))


def _changes(run: Run, saved: Inputs, now: Inputs) -> list[str]:
    try:
        steps = len(saved.plan["steps"])
        if run.finished_steps() >= steps and run.segmenter_path(steps - 1).is_file():  # a lost one is trained again
            now = Inputs(**(vars(saved) | {"recipe": now.recipe, "plan": now.plan}))
        return saved.changes(now)
    except (KeyError, TypeError, AttributeError):
        raise ContsegError(f"{run.folder / 'plan.json'}: not a plan; restore the file that this run wrote") from None


def _saved(run: Run, now: Inputs) -> Inputs:
    """The inputs of a begun run; what an earlier version did not record is as now."""
    content, plan = _content(run), run.plan()
    content.pop("accepted", None)
    try:
        return Inputs(**(asdict(now) | content | ({} if plan is None else {"plan": plan})))
    except TypeError:
        raise _damaged(run) from None


def _content(run: Run) -> dict[str, Any]:
    """inputs.json; with a mark in `accepted` if files to compare with are lost."""
    path, content = run.folder / INPUTS, dict[str, Any]()
    if path.is_file():
        run.manifest.check(path, RESTORE)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise _damaged(run) from None
        try:
            _ = [(one["step"], "; ".join(one["changes"])) for one in content.get("accepted", [])]
        except (AttributeError, KeyError, TypeError):
            raise _damaged(run) from None
    if lost := _lost(run):
        content["accepted"] = [*content.get("accepted", []), _mark(run, [f"{name} was missing" for name in lost])]
    return content


def _mark(run: Run, changes: list[str]) -> dict[str, Any]:
    return {"step": max(0, run.last_begun(), run.finished_steps()), "changes": changes}


def _lost(run: Run) -> list[str]:
    """Files of the start of a run that were written and are missing, although training has begun."""
    if run.last_begun() < 0:
        return []
    if (run.folder / INPUTS).is_file() and not run.manifest.path.is_file():  # written together
        return [run.manifest.path.name]
    return [name for name in (INPUTS, "plan.json") if name in run.manifest.entries() and not (run.folder / name).is_file()]


def _damaged(run: Run) -> ContsegError:
    return ContsegError(f"{run.folder / INPUTS}: is damaged; {RESTORE}")


def _digest_of(path: Path) -> str | None:
    """The digest of weights, or None if they are not there any more, or are no single file."""
    try:
        return file_digest(path)[:12]
    except OSError:
        return None


def _under(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
