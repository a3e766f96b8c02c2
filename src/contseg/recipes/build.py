"""Make a job that the engine can run from a recipe."""

from pathlib import Path
from typing import Any

import torch

from contseg.data.dataset import SegmentationDataset
from contseg.data.open import open_dataset
from contseg.data.pipelines.augment import Pipeline, evaluation_pipeline, training_pipeline
from contseg.data.presence import Progress
from contseg.differences import differences_text
from contseg.engine.inputs import recipe_changes
from contseg.engine.job import Job
from contseg.engine.options import TrainingOptions
from contseg.engine.overwrite import clear, require_free, would_delete
from contseg.engine.ready import require_startable
from contseg.engine.run import Run
from contseg.engine.spawned import refuse_unguarded
from contseg.errors import ContsegError
from contseg.interop.imagenet import require_fitting
from contseg.lock import owned
from contseg.methods.method import Method
from contseg.methods.registry import METHODS, make_method
from contseg.models.adopted.options import AdoptedOptions
from contseg.models.backbones.options import ViTOptions
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions, first_widths
from contseg.recipes.features import require_held
from contseg.recipes.read import read_recipe, read_run, to_yaml
from contseg.recipes.recipe import Recipe
from contseg.recipes.start import begun_with, given_start, resolved_start, with_network_of_start
from contseg.scenarios.scenario import Scenario


def open_recipe_dataset(recipe: Recipe) -> SegmentationDataset:
    """The dataset of a recipe.

    Raises:
        ContsegError: see `open_dataset`.
    """
    data = recipe.data
    access: dict[str, Any] = {"follow_links": data.follow_links, "max_pixels": data.max_pixels}
    return open_dataset(data.dataset, data.path, **access | data.options)


def make_scenario(recipe: Recipe, progress: Progress | None = None) -> Scenario:
    """The scenario of a recipe.

    Args:
        progress: called with (done, total) during the presence scan.

    Raises:
        ContsegError: the dataset or the split is invalid.
    """
    return Scenario(open_recipe_dataset(recipe), recipe.scenario, progress, first_is_known=recipe.start_from is not None)


def make_pipelines(recipe: Recipe, dataset: SegmentationDataset) -> tuple[Pipeline, Pipeline]:
    """The training and the evaluation pipeline of a recipe for its dataset.

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


def make_job(
    recipe: Recipe,
    folder: Path | str,
    *,
    progress: Progress | None = None,
    cache: Path | str | None = None,
    new: bool = False,
) -> Job:
    """The job of a recipe in a run folder; nothing is written.

    Args:
        progress: called with (done, total) during the presence scan.
        cache: folder in which runs share step 0, or None.
        new: whether a new run will begin in the folder. Then everything that it starts from is checked, and nothing in the
            folder is read.

    Raises:
        ContsegError: data, split, method, network, weights, devices or other options are invalid.
    """
    refuse_unguarded()
    folder, cache = Path(folder), None if cache is None else Path(cache)
    if recipe.training.keep == "best" and not recipe.scenario.validation:
        raise ContsegError("training.keep: 'best' needs held-out images; set scenario.validation=0.2 or so")
    scenario = make_scenario(recipe, progress)
    if recipe.training.keep == "best":
        for step in scenario[1:] if recipe.start_from else scenario:
            if not len(step.val):
                share = recipe.scenario.validation
                raise ContsegError(
                    f"scenario.validation: {share} of the {len(step.train)} images of step {step.index} is less than one"
                    " image; raise it, or set training.keep=last"
                )
    given = dict(recipe.method)
    method = make_method(given.pop("name"), **given)
    _require_unknown_handled(recipe, scenario, method)
    _require_leak_handled(recipe, method)
    _require_same_setting(recipe, method)
    require_undecided_counted(recipe)
    _require_exemplars_per_batch(recipe)
    _require_average_supported(recipe, method)
    _require_updates(recipe, scenario, method)
    _require_both_sides(recipe, scenario)
    training, evaluation = make_pipelines(recipe, scenario.dataset)
    network = recipe.network.model_copy(update={"unknown": scenario.policy.has_unknown})
    run = Run(folder)
    start_from = None
    if recipe.start_from is not None:
        done = not new and run.is_past_first_step()
        network = begun_with(recipe, run) if done else given_start(recipe, scenario)
        start_from = Path(recipe.start_from) if done else resolved_start(recipe)
        if new and folder.resolve() in start_from.resolve().parents:
            raise ContsegError(f"start_from: {start_from} is in {folder}, which the new run replaces; set another --out")
    method.check(network, scenario)
    require_held(recipe, scenario, method, network, training)
    _require_large_batch(recipe.training, method, network)
    if start_from is None or type(method).prepare is Method.prepare:  # a method may freeze the norms of later steps
        _require_batch_for_norms(recipe, network)
    if recipe.backbone_weights and (new or run.last_begun() < 0):
        require_fitting(network, Path(recipe.backbone_weights))
    require_startable(recipe.training, network, scenario[0].seen_count)
    return Job(
        scenario=scenario,
        method=method,
        network=network,
        training=recipe.training,
        training_pipeline=training,
        evaluation_pipeline=evaluation,
        recipe=(recipe.model_copy(update={"network": network}) if recipe.start_from else recipe).model_dump(mode="json"),
        folder=folder,
        backbone_weights=Path(recipe.backbone_weights) if recipe.backbone_weights else None,
        cache=cache,
        inference=recipe.evaluation,
        start_from=start_from,
    )


def _require_both_sides(recipe: Recipe, scenario: Scenario) -> None:
    """Raise ContsegError if images are flipped and a step labels only the left or only the right one of a pair.

    In a flipped image a left arm is a right arm. If only left arms are labelled, there is no correct label for either arm
    of a flipped image.
    """
    table = scenario.dataset.classes
    name_of = dict(zip(table.ids, table.names, strict=True))
    learned = scenario if recipe.start_from is None or recipe.scenario.memory else scenario[1:]
    for step in learned:
        marked = step.train.annotated[int(step.has_unknown) :]
        labelled = {number for number, there in zip(step.seen_classes, marked, strict=True) if there}
        halves = [pair for pair in scenario.dataset.mirror if len(labelled & {*pair}) == 1]
        if halves and recipe.data.flip:
            there, absent = sorted(halves[0], key=lambda number: number not in labelled)
            raise ContsegError(
                f"data.flip: step {step.index} labels {name_of[there]} and not {name_of[absent]}, which a flip swaps;"
                " set data.flip=0, or a scenario.split or scenario.order that adds both in one step"
            )


def _require_unknown_handled(recipe: Recipe, scenario: Scenario, method: Method) -> None:
    if scenario.policy.has_unknown and not method.handles_unknown:
        able = ", ".join(name for name, kind in METHODS.items() if kind.handles_unknown)
        raise ContsegError(
            f"method.name: '{method.name}' has no output \"unknown\", which policy {recipe.scenario.policy} needs;"
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


def _require_leak_handled(recipe: Recipe, method: Method) -> None:
    scenario = recipe.scenario
    if scenario.variant == "released" and scenario.by == "class" and not method.handles_leak:
        raise ContsegError(
            f"scenario.variant: released also annotates the first class of the next step, for which method '{method.name}'"
            " has no output; remove it"
        )


def _require_same_setting(recipe: Recipe, method: Method) -> None:
    """Raise ContsegError if a method that counts with the setting (STAR, Adapter) assumes another one."""
    assumed, setting = getattr(method, "setting", None), recipe.scenario.setting
    if assumed is not None and setting != assumed and "disjoint" in (setting, assumed):
        raise ContsegError(
            f"method.setting: '{assumed}', but scenario.setting is '{setting}', by which method '{method.name}' sizes its"
            f" replay; set method.setting={'disjoint' if setting == 'disjoint' else 'overlapped'}"
        )


def require_undecided_counted(recipe: Recipe) -> None:
    """Raise ContsegError if undecided pixels are ignored and the released code of the method counts them."""
    given = dict(recipe.method)
    if recipe.evaluation.undecided == "ignored" and not make_method(given.pop("name"), **given).ignores_undecided:
        raise ContsegError(
            f"evaluation.undecided: only the released code of SimCIS ignores undecided pixels, and the method is"
            f" {recipe.method['name']}; set evaluation.undecided=miss, or method.name=simcis and method.variant=released"
        )


def _require_exemplars_per_batch(recipe: Recipe) -> None:
    memory, batch = recipe.scenario.memory, recipe.training.batch
    if memory and memory.mix == "share" and int(memory.share * batch) == 0:
        raise ContsegError(
            f"scenario.memory.share: {memory.share} of a batch of {batch} is less than one image; raise it, or set"
            " scenario.memory.mix=sampling"
        )


def _require_batch_for_norms(recipe: Recipe, network: NetworkOptions) -> None:
    """Raise ContsegError if a norm would see a single value per channel, as a forward pass on the meta device shows."""
    if recipe.training.batch > 1:
        return
    crop = recipe.data.crop
    height, width = crop if isinstance(crop, list) else (crop, crop)
    with torch.device("meta"):  # shapes only: takes no memory and no time
        segmenter = make_segmenter(network, first_widths(network, 3)).train()
        try:
            segmenter(torch.empty(1, 3, height, width))
        except RuntimeError:  # shapes that depend on values, which come after the norms of the head
            return
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            name, other = f"head {network.head.name}", "network.head=fcn"
            reason = "which has a norm over averages of whole images"
            if network.head.name == "fcn":
                reason, other = f"of which a crop of {width} x {height} leaves one pixel to a norm", "a larger data.crop"
            if isinstance(network.backbone, ViTOptions) and network.backbone.stem is not None:
                name, other = "network.backbone.stem", "a larger data.crop, or network.backbone.stem=null"
                reason = f"of which a crop of {width} x {height} leaves one patch to a norm"
            if isinstance(network.backbone, AdoptedOptions):
                name, other = network.title, "another model"
            raise ContsegError(
                f"training.batch: 1 image is too few for {name}, {reason}; set training.batch=2, or {other}"
            ) from None


def _require_average_supported(recipe: Recipe, method: Method) -> None:
    if recipe.training.average != "all" and type(method).supervise is not Method.supervise:
        raise ContsegError(
            f"training.average: '{recipe.training.average}' is for plain cross-entropy; method '{method.name}' has a"
            " supervised term of its own; set training.average=all"
        )


def _require_updates(recipe: Recipe, scenario: Scenario, method: Method) -> None:
    """Raise ContsegError unless the steps that the method learns by updates, and only these, have epochs."""
    given, training = recipe.start_from is not None, recipe.training
    for step in scenario[1:] if given else scenario:
        epochs = training.epochs_of(step.index)
        if step.index and epochs and not method.updates_later_steps:
            first = f"[{training.epochs_of(0)}, 0]"
            raise ContsegError(
                f"training.epochs: {epochs} in step {step.index}, but method '{method.name}' learns later steps without"
                f" updates; set training.epochs={first}"
            )
        if not step.index and not epochs and not method.updates_later_steps and recipe.backbone_weights is None:
            raise ContsegError(
                f"training.epochs: 0 in step 0, but method '{method.name}' trains the network there; set [30, 0], or"
                " backbone_weights or start_from to use a trained one"
            )
        if not epochs and not method.learns_without_updates:
            raise ContsegError(
                f"training.epochs: 0 in step {step.index}, but method '{method.name}' learns by updates; set at least 1, or"
                " use a method with learns_without_updates"
            )


def _require_large_batch(training: TrainingOptions, method: Method, network: NetworkOptions) -> None:
    """Raise ContsegError unless several passes per update equal one large batch."""
    if training.accumulate == 1:
        return
    way = f"set training.accumulate=1 and training.batch={training.batch * training.accumulate}, on more devices if need be"
    if method.whole_batch_terms:
        terms = ", ".join(method.whole_batch_terms)
        raise ContsegError(
            f"training.accumulate: method '{method.name}' computes {terms} over the whole batch at once; {way}"
        )
    if network.idrnet is not None:
        raise ContsegError(f"training.accumulate: the tables of network.head.idrnet are updated by every batch; {way}")


def start_run(recipe: Recipe, folder: Path | str, overwrite: bool = False, resume: bool = False) -> Run:
    """Create a run folder with the resolved recipe. With `start_from`, the recipe gets the network of that segmenter.

    Args:
        overwrite: delete the files of an existing run, and no others. Check everything else first, using `make_job` with
            `new=True`.
        resume: continue with the run in the folder if it has the same recipe.

    Raises:
        ContsegError: the folder contains a run, or with `resume` one of another recipe; `start_from` cannot be read or has
            another network than the recipe sets; a file that the recipe names would be deleted; or another process trains
            in the folder.
    """
    refuse_unguarded()
    run = Run(folder)
    if resume and (run.folder / "recipe.yaml").is_file():
        resumed_recipe(run.folder, recipe)
        return run
    text = to_yaml(with_network_of_start(recipe))
    require_free(run.folder, overwrite)
    require_kept(recipe, run.folder)
    with owned(run.folder):
        clear(run.folder, overwrite)
        run.write_text("recipe.yaml", text)
    return run


def require_kept(recipe: Recipe, folder: Path) -> None:
    """Raise ContsegError if a file or folder that a recipe names is part of a run that will be overwritten."""
    named = {
        "start_from": recipe.start_from,
        "backbone_weights": recipe.backbone_weights,
        "data.path": recipe.data.path,
        "scenario.lists": recipe.scenario.lists,
        "scenario.saliency": recipe.scenario.saliency,
    }
    for key, value in named.items():
        if value is not None and would_delete(folder, Path(value)):
            raise ContsegError(
                f"{key}: {value} is part of the run in {folder}, which --overwrite deletes; copy it elsewhere first, or"
                " choose another folder with --out"
            )


RESUME_ADVICE = "resume without them, start another run with --out, or use --accept-changes, which marks the run"


def resumed_recipe(
    folder: Path | str, wanted: Recipe | None = None, advice: str = RESUME_ADVICE, *, accept_changes: bool = False
) -> Recipe:
    """The recipe of a run with the machine keys (devices, workers) and the data folder of another recipe.

    Args:
        wanted: the recipe to resume with, or None for that of the run.
        advice: end of the error if the recipes differ.
        accept_changes: also take other keys from `wanted`; whether the run can continue with them is checked by `train`.

    Raises:
        ContsegError: the folder contains no run, or the two recipes differ in keys that affect results (names the keys).
    """
    run = Run(folder).require()
    saved = read_recipe(run.folder / "recipe.yaml", [f"plugins={wanted.plugins}"] if wanted else [])
    if wanted is None:
        return saved
    wanted = wanted.model_copy(update={"plugins": saved.plugins})  # the run's plugins, in their new places
    if saved.start_from is not None and wanted.start_from == saved.start_from:  # the network is that of the segmenter
        network = saved.network.changed(**wanted.network.model_dump(exclude_unset=True))
        wanted = wanted.model_copy(update={"network": network})
    changed = recipe_changes(saved.model_dump(mode="json"), wanted.model_dump(mode="json"))
    if changed and not accept_changes:
        raise ContsegError(f"{folder}: the recipe changed since the run began: {differences_text(changed)}; {advice}")
    return wanted


def keep_recipe(run: Run, recipe: Recipe) -> str:
    """Save the accepted changes of a recipe, and where the data and the plugins of a run are now.

    The next resume, reports and evaluations read them. Name, notes and machine keys stay those of the start.

    Returns:
        a line if recipe.yaml is not the file that the run wrote, else "".
    """
    path = run.folder / "recipe.yaml"
    edited = not run.manifest.is_sound(path)
    if edited:  # in keys that do not affect results, or accepted
        run.manifest.record(path)
    saved = read_run(path)
    if recipe_changes(saved.model_dump(mode="json"), recipe.model_dump(mode="json")):
        run.write_text("recipe.yaml", to_yaml(recipe))
    elif (saved.data.path, saved.plugins) != (recipe.data.path, recipe.plugins):
        data = saved.data.model_copy(update={"path": recipe.data.path})
        run.write_text("recipe.yaml", to_yaml(saved.model_copy(update={"data": data, "plugins": recipe.plugins})))
    return f"{path}: is not the file that this run wrote; it is kept as it is" if edited else ""
