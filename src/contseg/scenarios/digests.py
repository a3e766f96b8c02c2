"""Digests of a step's data: equal digests mean equal images, labels and saliency maps."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from contseg.data.presence import Presence
from contseg.digest import file_sha256, sha256
from contseg.errors import ContsegError
from contseg.scenarios.batch import Samples
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.step import Step

LENGTH = 12
"""Hexadecimal digits of the digests in a plan."""


def samples_digest(samples: Samples) -> str:
    """SHA-256 over the names, the label map, the annotated classes and the saliency maps of samples.

    Raises:
        ContsegError: a saliency map is missing.
    """
    labels = samples.lookup.tobytes() + samples.annotated.tobytes()
    return sha256("\n".join(samples.names), labels, saliency_digest(samples))


def saliency_digest(samples: Samples) -> str:
    """SHA-256 over the files of the saliency maps of samples; "" if they have none.

    Raises:
        ContsegError: a map is missing.
    """
    if samples.saliency is None:
        return ""
    files = []
    for name in samples.names:
        path = samples.saliency / f"{name}.png"
        try:
            stat = path.stat()
            files.append(_file_digest(path, stat.st_size, stat.st_mtime_ns))
        except OSError as error:
            reason = error.strerror or error
            raise ContsegError(f"{path}: saliency map cannot be read ({reason}); every training image needs one") from None
    return sha256(*files)


@lru_cache(maxsize=1 << 18)  # a plan and the key of step 0 read the same files
def _file_digest(path: Path, size: int, changed: int) -> bytes:
    return bytes.fromhex(file_sha256(path))


def step_digests(scenario: Scenario, step: Step) -> dict[str, dict[str, str]]:
    """Digests of a step's data, by kind (`images`, `label_map`, `labels`, `masks`, `saliency`), then by role.

    `labels` are the pixels of each class in each image, and `masks` also where they are.

    Raises:
        ContsegError: a saliency map is missing.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> from contseg.scenarios.options import ScenarioOptions
        >>> scenario = Scenario(Digits(train=40, test=10), ScenarioOptions(split="5-1"))
        >>> one, other = (step_digests(scenario, step) for step in scenario[:2])
        >>> one["images"]["test"] == other["images"]["test"], sorted(one["labels"])
        (False, ['memory', 'test', 'train', 'val'])
    """
    roles: dict[str, tuple[Presence, Sequence[Samples]]] = {
        "train": (scenario.train_presence, [step.train]),
        "val": (scenario.train_presence, [step.val]),
        "test": (scenario.test_presence, [step.test]),
        "memory": (scenario.train_presence, step.memory),
    }
    kinds: dict[str, dict[str, str]] = {"images": {}, "label_map": {}, "labels": {}, "masks": {}, "saliency": {}}
    for role, (presence, parts) in roles.items():
        kinds["images"][role] = _digest("\n".join(name for part in parts for name in part.names).encode())
        kinds["label_map"][role] = _digest(b"".join(_label_map(part) + part.annotated.tobytes() for part in parts))
        rows = [presence.rows_of(part.names) for part in parts]
        kinds["labels"][role] = _digest(b"".join(presence.pixels[own].astype("<i8").tobytes() for own in rows))
        kinds["masks"][role] = _digest(b"".join(presence.masks[own].tobytes() for own in rows))
        maps = "".join(saliency_digest(part) for part in parts)
        if maps:
            kinds["saliency"][role] = _digest(maps.encode())
    return kinds


def _label_map(samples: Samples) -> bytes:
    """The training ids of all mask values; with saliency maps, the ids of values below 32768 without and with saliency."""
    if samples.saliency is None:
        return samples.lookup.tobytes()
    values, salient = np.arange(1 << 15, dtype=np.uint16), np.ones(1 << 15, dtype=np.uint8)
    return b"".join(samples.labels({"mask": values, "saliency": layer}).tobytes() for layer in (0 * salient, salient))


def _digest(content: bytes) -> str:
    return sha256(content)[:LENGTH]
