"""Reading a report as a program would, and folders of runs that nobody trained."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from contseg.data.classes import voc_palette
from contseg.engine.run import Run
from contseg.recipes.read import read_recipe, to_yaml


class Page(HTMLParser):
    """The tables, references, images, titles and texts of an HTML page.

    `tables`: rows of cell texts, per table, with the id or class of the table in `names`. `anchors`: links into the page.
    """

    def __init__(self, text: str):
        super().__init__()
        self.names: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.references: list[str] = []
        self.images: list[dict[str, str]] = []
        self.headings: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.title = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = {key: value or "" for key, value in attributes}
        self._open.append(tag)
        named = [given[key] for key in ("src", "href", "srcset", "action", "data", "poster") if key in given]
        self.references += [reference for reference in named if not reference.startswith("#")]  # a place on the page itself
        if tag == "a" and given["href"].startswith("#"):
            self.anchors.append(given["href"][1:])
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "img":
            self.images.append(given)
        if tag in ("img", "meta", "br", "link", "input", "source"):
            self._open.pop()
        if tag == "table":
            self.names.append(given.get("id") or given.get("class") or "")
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, text):
        inside = set(self._open)
        if "title" in inside:
            self.title += text
        if inside & {"td", "th"}:
            self.tables[-1][-1][-1] += text.strip()
        if inside & {"h1", "h2", "h3"}:
            self.headings[-1] += text

    def table(self, name: str) -> list[list[str]]:
        """The rows of the first table of this id or class."""
        return self.tables[self.names.index(name)]


def made_run(folder: Path, names: list[str], groups: list[int], recipe: str = "digits/plop_5-1", seed: int = 0) -> Run:
    """A finished run with random figures and predictions of these classes; `groups` are the steps that brought them."""
    run, rng, steps, count = Run(folder), np.random.default_rng(seed), max(groups) + 1, len(names)
    folder.mkdir(parents=True)
    run.write_text("recipe.yaml", to_yaml(read_recipe(recipe)))
    run.write_text(
        "environment.json", json.dumps({"date": "2026-11-27T05:10:37+00:00", "commit": "0a1b2c3", "device": "a GPU"})
    )
    same = np.random.default_rng(count)  # whatever the seed: of one dataset
    samples = {"names": np.array(["a", "b"]), "classes": np.array(names), "drawn": np.array([False, True])}
    samples["colours"] = np.array(voc_palette(count), dtype=np.uint8)
    for number in range(2):
        samples[f"truth{number}"] = np.kron(same.integers(0, count, (6, 8)), np.ones((8, 8))).astype(np.uint8)
        samples[f"image{number}"] = same.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    samples["truth0"][:8, :8] = 0
    run.save_arrays("samples.npz", **samples)
    for step in range(steps):
        known = sum(group <= step for group in groups)
        confusion = rng.integers(0, 3, (known, known)) + np.diag(rng.integers(0, 3 * known, known))
        none = {"domains": np.array([], dtype=str), "by_domain": np.zeros((0, known, known), dtype=np.int64)}
        run.save_arrays(f"steps/{step:02d}/confusion.npz", confusion=confusion, groups=groups, background=True, **none)
        said = {f"prediction{number}": samples[f"truth{number}"] % known for number in range(2)}
        said["prediction0"][:8, :8] = step  # right after step 0, and then no longer
        for kind in ("entropy", "margin"):
            said |= {f"{kind}{number}": rng.integers(0, 255, (24, 32)).astype(np.uint8) for number in range(2)}
        run.save_arrays(f"steps/{step:02d}/predictions.npz", **said)
        run.append_metrics({"kind": "epoch", "step": step, "loss": 1 / (step + 1), "pseudo": {names[1]: 0.25}})
        run.append_metrics(
            {"kind": "step", "step": step, "seconds": 60.0, "warnings": ["background collapsed"] if step == 1 else []}
        )
    images = {"train_images": 30, "val_images": 0, "test_images": 9, "memory_images": 0, "domains": []}
    told = {"dataset": "made", "by": "class", "split": "x", "setting": "overlapped", "policy": "mib", "warnings": []}
    holding = [same.integers(0, 30, count).tolist() for _ in range(steps)]
    brought = [[name for name, group in zip(names, groups, strict=True) if group == step] for step in range(steps)]
    plan = [{"index": step, "new_classes": brought[step], "train_holding": holding[step], **images} for step in range(steps)]
    run.write_text("plan.json", json.dumps({**told, "class_names": names, "hash": f"{count:012x}", "steps": plan}))
    return run
