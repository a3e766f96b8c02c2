"""Registries of parts by name, and plugins that add parts.

A part of your own is added in one place, either of the two:

* by a decorator such as `register_method`, in a module or file under `plugins` in a recipe or after `--plugin`;
* by an entry point of an installed package, in the group of its kind, such as `contseg.methods`.
"""

import hashlib
import importlib
import inspect
import marshal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from contseg.errors import ContsegError, did_you_mean

Part = TypeVar("Part")

PACKAGE = __name__.partition(".")[0]
HOW = "your own come with --plugin FILE.py or MODULE"
_not_loaded: dict[str, str] = {}
"""Modules of plugins that `load_plugins` skipped, with the error."""


class Registry(Generic[Part]):
    """The parts of one kind by name. A part is imported when it is used.

    Args:
        kind: the kind in the plural; `contseg.KIND` is the group of the entry points.
        key: where users write the name, for errors.
        own: the parts of this package, or their location as `module:attribute`.
        require: raises ContsegError unless its argument is a part of this kind.

    Example:
        >>> shapes = Registry("shapes", "data.shape", {"half": "fractions:Fraction"})
        >>> shapes["half"](1, 2), "whole" in shapes, list(shapes)
        (Fraction(1, 2), False, ['half'])
        >>> shapes["hlaf"]
        Traceback (most recent call last):
        contseg.errors.ContsegError: data.shape: unknown shape 'hlaf'; did you mean 'half'? (known: half)
    """

    def __init__(
        self, kind: str, key: str, own: Mapping[str, Part | str], require: Callable[[Part], None] = lambda part: None
    ):
        self.kind, self.noun, self._key, self._own, self._require = kind, kind.removesuffix("s"), key, own, require
        self._loaded: dict[str, Part] = {}

    @cached_property
    def _found(self) -> dict[str, list[EntryPoint | Part]]:
        """Name to parts or entry points; more than one if several packages use the name."""
        found: dict[str, list[EntryPoint | Part]] = {
            name: [EntryPoint(name, part, f"contseg.{self.kind}") if isinstance(part, str) else part]
            for name, part in self._own.items()
        }
        for entry in sorted(entry_points(group=f"contseg.{self.kind}")):
            found.setdefault(entry.name, []).append(entry)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._found  # a recipe may have a list there

    def __getitem__(self, name: str) -> Part:
        """The part with a name.

        Raises:
            ContsegError: the name is unknown, packages use it for different parts, or the part cannot be imported.
        """
        if name not in self._loaded:
            self.check(name)
            part = self._found[name][0]
            self._loaded[name] = _load(part, self._key) if isinstance(part, EntryPoint) else part
            self._require(self._loaded[name])
        return self._loaded[name]

    def items(self) -> Iterator[tuple[str, Part]]:
        """Names and parts; imports all of them."""
        return ((name, self[name]) for name in self)

    def get(self, name: str, default: Part) -> Part:
        """The part with a name, or the default if the name is unknown."""
        return self[name] if name in self else default  # noqa: SIM401 (this is `get` itself)

    def unknown(self, name: str) -> str:
        """The error text for an unknown name."""
        if _not_loaded:
            return "; ".join([f"unknown {self.noun} '{name}'", *_not_loaded.values()])
        near = did_you_mean(name, self)
        return f"unknown {self.noun} '{name}'; {near}{'' if near.startswith('did') else f'; {HOW}'}"

    def check(self, name: str) -> None:
        """Raise ContsegError unless exactly one part has this name; nothing is imported."""
        if name not in self._found:
            raise ContsegError(f"{self._key}: {self.unknown(name)}")
        one, *others = self._found[name]
        if other := next((other for other in others if not _places(one) & _places(other)), None):
            raise ContsegError(
                f"{self._key}: two {self.kind} have the name '{name}', {_location(one)} and {_location(other)};"
                " uninstall one of them"
            )

    def package(self, name: str) -> str | None:
        """The installed package of a part; None for parts of contseg and for registered parts."""
        part = self._found[name][0] if name in self else None
        return part.module.partition(".")[0] if isinstance(part, EntryPoint) and part.dist else None

    def register(self, part: Part, name: str | None = None) -> Part:
        """Add a part, so that recipes can use it by name. Also a decorator for classes with an attribute `name`.

        Raises:
            ContsegError: the part has no name or is not of this kind, or the name is taken.

        Example:
            >>> shapes = Registry("shapes", "data.shape", {})
            >>> @shapes.register
            ... class Square:
            ...     name = "square"
            >>> shapes["square"]
            <class '...Square'>
        """
        own = getattr(part, "__name__", repr(part))
        name = name or _name_of(part)
        if name is None:
            raise ContsegError(f"{own}: a {self.noun} needs a name; give the class an attribute `name`")
        self._require(part)
        for other in self._found.get(name, []):
            if not _places(part) & _places(other):
                raise ContsegError(f"{own}: the name '{name}' is taken by {_location(other)}; choose another")
        self._found.setdefault(name, [part])
        self._loaded[name] = part  # replaces the part if it is defined again, as in a notebook
        return part

    def unregister(self, name: str) -> None:
        """Remove a registered part."""
        self._found.pop(name)
        self._loaded.pop(name)


def module_of(plugin: str) -> str:
    """The module name of a plugin: of a file, its name without the suffix.

    Example:
        >>> module_of("methods/careful.py"), module_of("contseg_example.method")
        ('careful', 'contseg_example.method')
    """
    return Path(plugin).stem if plugin.endswith(".py") else plugin


def joined(plugins: Sequence[str], more: object, folder: Path) -> list[str]:
    """Join two lists of plugins, with files as absolute paths; a later plugin replaces an earlier one of the same module.

    Args:
        more: the value under `plugins` in a recipe: a list, or a single plugin.
        folder: the folder that files in `more` are relative to.

    Raises:
        ContsegError: `more` has another type.

    Example:
        >>> joined(["/old/careful.py", "timm"], ["careful.py"], Path("/new"))
        ['/new/careful.py', 'timm']
    """
    given = [more] if isinstance(more, str) else more
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise ContsegError(f"plugins: expected modules or files, such as [careful.py] (got {more!r})")
    whole = [str((folder / one).resolve()) if one.endswith(".py") else one for one in given]
    return list({module_of(one): one for one in [*plugins, *whole]}.values())


def load_plugins(plugins: Sequence[str], *, required: bool = True) -> None:
    """Import plugins, which register their parts. Plugins that are already imported are not reloaded.

    Args:
        plugins: modules, or files that end in `.py`.
        required: whether a plugin that cannot be imported is an error. Otherwise the error is shown if a part is missing.

    Raises:
        ContsegError: a plugin is missing, or raised an error (names plugin, line and error).
    """
    for plugin in plugins:
        try:
            _import(plugin)
            _not_loaded.pop(module_of(plugin), None)
        except ContsegError as error:
            if required:
                raise
            _not_loaded[module_of(plugin)] = str(error)


def _import(plugin: str) -> None:
    name, file = module_of(plugin), Path(plugin).resolve() if plugin.endswith(".py") else None
    if name in sys.modules and (file is None or not file.is_file()):
        return  # also if the file was moved, and --plugin has loaded it from its new place
    if file is not None:
        if not file.is_file():
            raise ContsegError(f"plugins: {plugin}: file not found; give its new place with --plugin FOLDER/{file.name}")
        if "." in name:
            raise ContsegError(f"plugins: {plugin}: the file name must not contain a dot; rename the file")
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))  # so that spawned processes find it too
            importlib.invalidate_caches()
    module = _imported(name, f"plugins: {plugin}")
    if file is not None and Path(module.__file__ or "").resolve() != file:
        raise ContsegError(f"plugins: {plugin}: another module has the name {name} ({module.__file__}); rename the file")


def _imported(name: str, what: str) -> ModuleType:
    """Import a module; any error becomes one line."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            way = "install it, check PYTHONPATH, or give a file with --plugin FILE.py"
            raise ContsegError(f"{what}: no module named '{error.name}'; {way}") from None
        raise ContsegError(f"{what}{_line(error, what)}: {error}") from None
    except ContsegError as error:
        raise ContsegError(f"{what}{_line(error, what)}: {error}") from None
    except (Exception, SystemExit) as error:  # plugins may raise anything
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        raise ContsegError(f"{what}{_line(error, what)}: {type(error).__name__}: {text}") from None


def _line(error: BaseException, what: str) -> str:
    """The last line of the plugin's own code in a traceback, as text."""
    if isinstance(error, SyntaxError):
        file, line = str(error.filename), error.lineno
    else:
        skipped = (str(Path(__file__).parent), importlib.__path__[0], "<frozen")
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(skipped)]
        if not frames:
            return ""
        folder = Path(frames[0].filename).parent
        file, line = [(one.filename, one.lineno) for one in frames if Path(one.filename).is_relative_to(folder)][-1]
    return f", line {line}" if file in what else f", {file}, line {line}"


def _load(entry: EntryPoint, key: str) -> Any:
    what = f"{key}: {entry.name} ({_location(entry)})"
    found: Any = _imported(entry.module, what)
    for attribute in entry.attr.split("."):
        if not hasattr(found, attribute):
            raise ContsegError(f"{what}: {entry.module} has no {attribute}; correct the entry point of the package")
        found = getattr(found, attribute)
    return found


def _name_of(part: object) -> str | None:
    """The attribute `name` of a class, or the default of this field in pydantic options."""
    field = getattr(part, "model_fields", {}).get("name")
    name = getattr(part, "name", None) if field is None else field.default
    return name if isinstance(name, str) else None


def _places(part: object) -> set[str]:
    """Where a part is defined, by module and by file, as a script has another module name in spawned ranks."""
    if isinstance(part, EntryPoint):
        return {part.value}
    module, name = getattr(part, "__module__", ""), getattr(part, "__qualname__", repr(part))
    file = getattr(sys.modules.get(module), "__file__", None)
    return {f"{module}:{name}", f"{file or module}:{name}"}


def _location(part: object) -> str:
    """The location of a part and its package, for errors."""
    if isinstance(part, EntryPoint):
        return f"{part.value} of {part.dist.name}" if part.dist else part.value
    return f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', repr(part))}"


def is_foreign(kind: type) -> bool:
    """Whether a class is defined outside this package.

    Example:
        >>> is_foreign(Path)
        True
    """
    return kind.__module__.partition(".")[0] != PACKAGE


def foreign_digest(kind: type) -> str:
    """SHA-256 over the source of a class outside the package and of its base classes; "" for a class of the package.

    The source is the file of the class, or all files of its package; without a file it is the byte code of its functions.
    """
    if not is_foreign(kind):
        return ""
    digest = hashlib.sha256()
    for one in kind.__mro__:
        if is_foreign(one) and one.__module__ not in ("builtins", "abc", "typing"):
            digest.update(f"{one.__qualname__}\n".encode())  # not the module, which has another name in a spawned rank
            digest.update(_source(one))
    return digest.hexdigest()


def _source(kind: type) -> bytes:
    """The content of the file of a class, or of all files of its package."""
    try:
        file = Path(inspect.getfile(kind))
        package = getattr(sys.modules.get(kind.__module__), "__package__", "")
        files = sorted(file.parent.rglob("*.py")) if package else [file]
        return b"".join(one.read_bytes() for one in files)
    except (OSError, TypeError):
        pass
    functions = {name: value for name, value in vars(kind).items() if inspect.isfunction(value)}
    return b"".join(name.encode() + marshal.dumps(functions[name].__code__) for name in sorted(functions))
