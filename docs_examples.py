"""Extension of griffe for the site: the docstrings of this package in griffe's form."""

import re
from typing import Any

import griffe

TWO_ARGUMENTS = re.compile(r"^( +)(\w+), (\w+): (.*(?:\n\1 +.*)*)", re.MULTILINE)


class Examples(griffe.Extension):
    """Read the section `Example:` as griffe's `Examples:`, and `one, other: text` as two arguments."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite a docstring."""
        if obj.docstring:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = TWO_ARGUMENTS.sub(r"\1\2: \4\n\1\3: \4", text)
