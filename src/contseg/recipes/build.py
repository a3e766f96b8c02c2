"""From a recipe to a job that the engine can run."""

from pathlib import Path

from contseg.data.augment import Pipeline, evaluation_pipeline, training_pipeline
from contseg.data.dataset import SegmentationDataset
from contseg.data.open import open_dataset
from contseg.data.presence import Progress
from contseg.engine.job import Job
from contseg.engine.options import MACHINE_KEYS, TrainingOptions
from contseg.engine.run import Run
from contseg.engine.spawned import refuse_unguarded
from contseg.errors import ContsegError
from contseg.interop.imagenet import require_fitting
from contseg.methods.method import Method
from contseg.methods.registry import METHODS, make_method
from contseg.models.options import NetworkOptions
from contseg.recipes.read import differences, read_recipe, to_yaml
from contseg.recipes.recipe import Recipe
from contseg.recipes.start import given_start
from contseg.scenarios.scenario import Scenario


def open_recipe_dataset(recipe: Recipe) -> SegmentationDataset:
    """The dataset a recipe names.

    Raises:
        ContsegError: see `open_dataset`.
    """
    return open_dataset(recipe.data.dataset, recipe.data.path, **recipe.data.options)


def make_scenario(recipe: Recipe, progress: Progress | None = None) -> Scenario:
    """The scenario a recipe names; `progress` is told of the presence scan.

    Raises:
        ContsegError: the dataset or the split is wrong.
    """
    return Scenario(open_recipe_dataset(recipe), recipe.scenario, progress, first_is_known=recipe.start_from is not None)


def make_pipelines(recipe: Recipe, dataset: SegmentationDataset) -> tuple[Pipeline, Pipeline]:
    """Training and evaluation pipelines of a recipe, for its dataset.

    Raises:
        ContsegError: the pipeline has no such setting.
    """
    data = recipe.data
    training = training_pipeline(
        data.pipeline,
        data.crop,
        data.flip,
        data.jitter.model_dump() if data.jitter else None,
        scale=data.scale,
        resize=data.resize,
        mirror=dataset.mirror,
        void=dataset.classes.void,
    )
    return training, evaluation_pipeline(data.test_crop)


def make_job(recipe: Recipe, folder: Path, *, progress: Progress | None = None, cache: Path | None = None) -> Job:
    """The job of a recipe in a run folder.

    Args:
        progress: told of the presence scan.
        cache: folder for sharing step 0, or None.

    Raises:
        ContsegError: data, split, method or options are wrong.
    """
    refuse_unguarded()
    if recipe.training.keep == "best" and not recipe.scenario.validation:
        raise ContsegError("training.keep: 'best' needs held-out images; set scenario.validation=0.2 or so")
    scenario = make_scenario(recipe, progress)
    if recipe.training.keep == "best":
        for step in scenario[1:] if recipe.start_from else scenario:
            if not len(step.val):
                share = recipe.scenario.validation
                raise ContsegError(
                    f"scenario.validation: {share} of the {len(step.train)} images of step {step.index} is none;"
                    " raise it, or set training.keep=last"
                )
    given = dict(recipe.method)
    method = make_method(given.pop("name"), **given)
    _require_unknown_handled(recipe, scenario, method)
    _require_exemplars_per_batch(recipe)
    _require_average_heeded(recipe, method)
    training, evaluation = make_pipelines(recipe, scenario.dataset)
    network = recipe.network.model_copy(update={"unknown": scenario.policy.has_unknown})
    given_network, start_from = given_start(recipe, scenario, folder) or (network, None)
    method.check(given_network, scenario)
    _require_large_batch(recipe.training, method, given_network)
    if recipe.backbone_weights and Run(folder).load_state(0) is None:
        require_fitting(given_network, Path(recipe.backbone_weights))
    return Job(
        scenario=scenario,
        method=method,
        network=given_network,
        training=recipe.training,
        training_pipeline=training,
        evaluation_pipeline=evaluation,
        recipe=recipe.model_dump(mode="json"),
        folder=folder,
        backbone_weights=Path(recipe.backbone_weights) if recipe.backbone_weights else None,
        cache=cache,
        inference=recipe.evaluation,
        start_from=start_from,
    )


def _require_unknown_handled(recipe: Recipe, scenario: Scenario, method: Method) -> None:
    if scenario.policy.has_unknown and not method.handles_unknown:
        able = ", ".join(name for name, kind in METHODS.items() if kind.handles_unknown)
        raise ContsegError(
            f"method.name: '{method.name}' knows no output \"unknown\", which policy {recipe.scenario.policy} learns;"
            f" use {able}, or scenario.policy=plop"
        )
    if method.needs_unknown and not scenario.policy.has_unknown:
        raise ContsegError(
            f"scenario.policy: method '{method.name}' learns an output \"unknown\", for which policy"
            f" {recipe.scenario.policy} has no labels; set scenario.policy=ssul"
        )
    if recipe.network.unknown and not scenario.policy.has_unknown:
        raise ContsegError(
            f"network.unknown: policy {recipe.scenario.policy} has no labels for it; set scenario.policy=ssul,"
            " or leave it out"
        )


def _require_exemplars_per_batch(recipe: Recipe) -> None:
    memory, batch = recipe.scenario.memory, recipe.training.batch
    if memory and memory.mix == "share" and int(memory.share * batch) == 0:
        raise ContsegError(
            f"scenario.memory.share: {memory.share} of a batch of {batch} is no image; raise it, or set"
            " scenario.memory.mix=sampling"
        )


def _require_average_heeded(recipe: Recipe, method: Method) -> None:
    if recipe.training.average != "all" and type(method).supervise is not Method.supervise:
        raise ContsegError(
            f"training.average: '{recipe.training.average}' is for plain cross-entropy; method '{method.name}' has a"
            " supervised term of its own; set training.average=all"
        )


def _require_large_batch(training: TrainingOptions, method: Method, network: NetworkOptions) -> None:
    """Passes that are gathered must learn what one large batch does."""
    if training.accumulate == 1:
        return
    way = f"set training.accumulate=1 and training.batch={training.batch * training.accumulate}, on more devices if need be"
    if method.whole_batch_terms:
        raise ContsegError(
            f"training.accumulate: method '{method.name}' computes {', '.join(method.whole_batch_terms)} over the whole"
            f" batch at once; {way}"
        )
    if network.idrnet is not None:
        raise ContsegError(f"training.accumulate: the tables of network.idrnet move with every batch; {way}")


def start_run(recipe: Recipe, folder: Path, overwrite: bool = False, resume: bool = False) -> Run:
    """A new run folder that holds the resolved recipe.

    Args:
        overwrite: delete the run that is in the folder.
        resume: continue with the run that is in the folder, if it is of the same recipe.

    Raises:
        ContsegError: the folder holds a run already, or with `resume` one of another recipe.
    """
    refuse_unguarded()
    run = Run(folder)
    if resume and (run.folder / "recipe.yaml").is_file():
        resumed_recipe(run.folder, recipe)
        return run
    run.create(overwrite)
    run.write_text("recipe.yaml", to_yaml(recipe))
    return run


def resumed_recipe(folder: Path, wanted: Recipe | None = None) -> Recipe:
    """The recipe of the run in a folder, with the machine keys (devices, workers) of the wanted one.

    Args:
        wanted: what the user asks to go on with, or None for the run's own.

    Raises:
        ContsegError: no run there, or the wanted recipe differs in what is learned (says in what).
    """
    run = Run(folder).require()
    saved = read_recipe(run.folder / "recipe.yaml")
    if wanted is None:
        return saved
    changed = {
        key: values
        for key, values in differences(saved, wanted).items()
        if key not in {f"training.{name}" for name in MACHINE_KEYS}
        and key.partition(".")[0] not in ("name", "note", "links", "based_on", "initial_weights")
        and key != "data.path"
    }
    if changed:
        key, (before, now) = next(iter(changed.items()))
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ContsegError(
            f"{folder}: the recipe changed since the run began: {key} was {before!r}, is {now!r}{more};"
            " resume with the run's own recipe, or start another run with --out"
        )
    return wanted
