"""A few test images, predicted after every step, so that a report shows what the run learned and forgot."""

import numpy as np

from contseg.engine.job import Job
from contseg.engine.session import Session
from contseg.evaluation.predict import predict_batch
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step

COUNT = 6


def chosen_names(job: Job) -> list[str]:
    """Test images that cover many classes: each next image adds the most missing classes (ties: list order)."""
    presence = job.scenario.test_presence
    rows = {name: row for row, name in enumerate(presence.names)}
    names = list(job.scenario[-1].test.names)
    there = presence.pixels[[rows[name] for name in names]] > 0
    missing = np.ones(there.shape[1], dtype=bool)
    chosen: list[int] = []
    for _ in range(min(COUNT, len(names))):
        gain = (there & missing).sum(axis=1)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        missing &= ~there[best]
        if not missing.any():
            missing[:] = True
    return [names[row] for row in chosen]


def keep_samples(session: Session) -> None:
    """Write the sample images, cut as in evaluation, with their labels after the last step, class names and colours."""
    job = session.job
    table = job.scenario[-1].table
    arrays: dict[str, np.ndarray] = {
        "names": np.array(chosen_names(job)),
        "classes": np.array(table.names),
        "colours": np.array(table.colours, dtype=np.uint8),
    }
    for number, name in enumerate(arrays["names"]):
        image, mask = job.scenario.dataset.read(str(name))
        pixels, layers = job.evaluation_pipeline(image, {"mask": mask}, np.random.default_rng(0))
        arrays[f"image{number}"] = pixels.permute(1, 2, 0).contiguous().numpy()
        arrays[f"truth{number}"] = job.scenario[-1].test.labels(layers)
    session.run.save_arrays("samples.npz", **arrays)


def keep_predictions(session: Session, step: Step, segmenter: Segmenter) -> None:
    """Write the predictions for the sample images after a step."""
    job, training = session.job, segmenter.training
    segmenter.eval()
    arrays, inference = {}, job.inference_at(step)
    for number, name in enumerate(chosen_names(job)):
        image, mask = job.scenario.dataset.read(name)
        pixels, _ = job.evaluation_pipeline(image, {"mask": mask}, np.random.default_rng(0))
        predicted = predict_batch(segmenter, pixels.unsqueeze(0).to(segmenter.mean.device), inference=inference)
        arrays[f"prediction{number}"] = predicted[0].cpu().numpy().astype(np.uint8)
    segmenter.train(training)
    session.run.save_arrays(f"steps/{step.index:02d}/predictions.npz", **arrays)
