"""A digest of the code that computes: what one version of it learned, another does not take over."""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import torch

PACKAGE = __name__.partition(".")[0]
APART = ("cli", "recipes", "report")
"""Rooms that compute no weights."""


@cache
def package_digest() -> str:
    """SHA-256 over PyTorch's version and the sources of every room of the package that can change what is learned."""
    digest = hashlib.sha256(torch.__version__.encode())
    for entry in sorted(files(PACKAGE).iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name not in APART:
            _add(entry, digest)
    return digest.hexdigest()


def _add(folder: Traversable, digest: "hashlib._Hash") -> None:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            _add(entry, digest)
        elif entry.name.endswith(".py"):
            digest.update(f"{entry.name}\n".encode() + entry.read_bytes())
