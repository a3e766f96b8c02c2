"""`contseg plan`."""

from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from contseg.cli.console import console, progress_bar
from contseg.recipes.build import make_scenario
from contseg.recipes.read import read_recipe
from contseg.scenarios.plan import Plan, make_plan


def print_plan(source: str, overrides: list[str], pixels: bool, picture: Path | None) -> None:
    """Print the plan of a recipe's scenario, and optionally draw it."""
    recipe = read_recipe(source, overrides)
    with progress_bar() as progress:
        plan = make_plan(make_scenario(recipe, progress), recipe.training.batch)
    console.print(step_table(plan))
    if pixels:
        console.print(pixel_table(plan))
    for warning in plan.warnings:
        console.print(Text.assemble(("note", "yellow"), f": {warning}"))
    console.print(f"plan hash: {plan.hash}")
    if picture:
        from contseg.report.plan_map import write_plan_picture

        console.print(f"picture: {write_plan_picture(asdict(plan), picture)}", soft_wrap=True)


def step_table(plan: Plan) -> Table:
    """Images per step, and the published selection that a step equals."""
    table = Table(title=f"{plan.dataset} {plan.split} by {plan.by}, {plan.setting}, policy {plan.policy}")
    table.add_column("step", justify="right")
    table.add_column("new classes")
    domains = any(step.domains for step in plan.steps)
    memory = any(step.memory_images for step in plan.steps)
    if domains:
        table.add_column("domains")
    for title in ("train", *(["memory", "MB"] if memory else []), "val", "test"):
        table.add_column(title, justify="right")
    table.add_column("equals published")
    for step in plan.steps:
        names = ", ".join(name for name in step.new_classes if name != "background")
        kept = [str(step.memory_images), f"{step.memory_megabytes:.1f}"] if memory else []
        table.add_row(
            str(step.index),
            names,
            *([", ".join(step.domains)] if domains else []),
            *(str(step.train_images), *kept, str(step.val_images), str(step.test_images)),
            "; ".join(step.matches) or "-",
        )
    return table


def pixel_table(plan: Plan) -> Table:
    """Pixels of every class in the training images of each step, in thousands, counted in the full masks."""
    table = Table(title="pixels per class in the training images, thousands (before the label policy)")
    table.add_column("class")
    for step in plan.steps:
        table.add_column(f"step {step.index}", justify="right")
    for row, name in enumerate(plan.class_names):
        table.add_row(name, *(f"{step.train_pixels[row] / 1000:.1f}" for step in plan.steps))
    return table
