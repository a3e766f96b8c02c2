"""`contseg plan`."""

from rich.table import Table

from contseg.cli.console import console, scan_progress
from contseg.recipes.build import make_scenario
from contseg.recipes.read import read_recipe
from contseg.scenarios.plan import Plan, make_plan


def print_plan(source: str, overrides: list[str], pixels: bool) -> None:
    """Print the plan of a recipe's scenario."""
    recipe = read_recipe(source, overrides)
    with scan_progress() as progress:
        plan = make_plan(make_scenario(recipe, progress))
    console.print(step_table(plan))
    if pixels:
        console.print(pixel_table(plan))
    console.print(f"plan hash: {plan.hash}")


def step_table(plan: Plan) -> Table:
    """Images per step, and the published selection that a step equals."""
    table = Table(title=f"{plan.dataset} {plan.split} {plan.setting}, policy {plan.policy}")
    for title in ("step", "new classes", "train", "val", "test", "equals published"):
        table.add_column(title, justify="right" if title in ("step", "train", "val", "test") else "left")
    for step in plan.steps:
        names = ", ".join(name for name in step.new_classes if name != "background")
        images = (step.train_images, step.val_images, step.test_images)
        table.add_row(str(step.index), names, *map(str, images), "; ".join(step.matches) or "-")
    return table


def pixel_table(plan: Plan) -> Table:
    """Training pixels of every class in the images of each step, in thousands, as the full masks have them."""
    table = Table(title="pixels per class in the training images, thousands (before the label policy)")
    table.add_column("class")
    for step in plan.steps:
        table.add_column(f"step {step.index}", justify="right")
    for row, name in enumerate(plan.class_names):
        table.add_row(name, *(f"{step.train_pixels[row] / 1000:.1f}" for step in plan.steps))
    return table
