"""TensorBoard events of a run, if the extra `tensorboard` is installed."""

import importlib.util

from contseg.engine.run import Run


def write_events(run: Run) -> bool:
    """Write the metrics of a run as events under `tensorboard/`; returns False without the extra.

    The events are rewritten from metrics.jsonl after every step, so that a resumed run has no duplicate points.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from torch.utils.tensorboard import SummaryWriter

    folder = run.folder / "tensorboard"
    for old in folder.glob("events.out.tfevents.*"):
        run.remove(old)
    epochs = [line for line in run.metrics() if line["kind"] == "epoch"]
    labels = {name: None for line in epochs for name in line.get("pseudo", {})}
    with SummaryWriter(str(folder)) as writer:
        for number, line in enumerate(epochs):
            writer.add_scalar("train/loss", line["loss"], number)
            writer.add_scalar("train/lr", line["lr"], number)
            for name, value in line["terms"].items():
                writer.add_scalar(f"train/{name}", value, number)
            for name in labels if "pseudo" in line else ():
                writer.add_scalar(f"pseudo/{name}", 100 * line["pseudo"].get(name, 0.0), number)
        for line in run.metrics():
            if line["kind"] == "step":
                for name in ("old", "new", "all", "all_with_background"):
                    if line[name] is not None:
                        writer.add_scalar(f"test/{name}", 100 * line[name], line["step"])
    run.manifest.record(*folder.glob("events.out.tfevents.*"), grows=True)
    return True
