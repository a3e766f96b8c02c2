"""The list of packaged recipes."""

from dataclasses import dataclass

from contseg.errors import ContsegError, did_you_mean
from contseg.recipes.published import PublishedRow, method_key, network_key, published_for
from contseg.recipes.read import outline, recipe_names
from contseg.recipes.recipe import Recipe
from contseg.scenarios.splits import split_size


@dataclass(frozen=True)
class Entry:
    """A packaged recipe in a list.

    Attributes:
        name: name of the recipe.
        system: a method, `ssul-m`, `joint` or `idrnet`.
        dataset, split, setting: as in the recipe. The split of `joint` gives the groups that are scored. The setting of a
            recipe with one step is empty.
        network: such as `deeplabv3-mib_resnet101-d16`.
        published: published rows of the same protocol, may be empty.
    """

    name: str
    system: str
    dataset: str
    split: str
    setting: str
    network: str
    published: tuple[PublishedRow, ...]

    @classmethod
    def of(cls, name: str) -> "Entry":
        """The entry of a packaged recipe.

        Raises:
            ContsegError: no recipe has this name.
        """
        recipe = outline(name)
        scenario = recipe.scenario
        return cls(
            name=name,
            system=system_of(recipe),
            dataset="isprs-domain" if len(scenario.domains or ()) > 1 else recipe.data.dataset,
            split=scenario.scored_as or scenario.split,
            setting="" if scenario.split == "offline" else scenario.setting,
            network=network_key(recipe),
            published=tuple(published_for(recipe)),
        )

    @property
    def released(self) -> bool:
        """Whether the recipe follows the released code instead of the paper."""
        return self.name.endswith("_released")


def system_of(recipe: Recipe) -> str:
    """The system of a recipe, see `Entry`.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> system_of(read_recipe("voc/sdr_15-1_disjoint")), system_of(read_recipe("voc/ssul-m_15-1_disjoint"))
        ('sdr', 'ssul-m')
    """
    return method_key(recipe).removesuffix("+mib")


def catalogue(system: str | None = None, dataset: str | None = None, split: str | None = None) -> list[Entry]:
    """The packaged recipes, optionally of one system, dataset or split only, sorted by dataset, split, system and name.

    Raises:
        ContsegError: no recipe has this system, dataset or split.

    Example:
        >>> [entry.name for entry in catalogue("idrnet", "lip")][:2]
        ['lip/idrnet_deeplabv3_resnet50-d8', 'lip/idrnet_fcn_resnet50-d8']
    """
    entries = [Entry.of(name) for name in recipe_names()]
    for key, wanted in (("system", system), ("dataset", dataset), ("split", split)):
        if wanted is None:
            continue
        known = {getattr(entry, key) for entry in entries}
        if wanted not in known:
            raise ContsegError(f"--{key}: no recipe has {key} '{wanted}'; {did_you_mean(wanted, known)}")
        entries = [entry for entry in entries if getattr(entry, key) == wanted]
    return sorted(
        entries, key=lambda entry: (entry.dataset, split_size(entry.split), entry.setting, entry.system, entry.name)
    )
