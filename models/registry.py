"""Name to model: the built-in ones, and those that other packages bring by entry point.

A package adds a model with three lines in its ``pyproject.toml``::

    [project.entry-points."anode.models"]
    my-model = "my_package.my_module:MyModel"

The object named is called without arguments and must return a ``models.base.Model``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from models.base import Model, ModelCard, Need, Parameter

ENTRY_POINT_GROUP = "anode.models"

#: Name to "module:factory"; a module is imported only when its model is loaded.
BUILT_IN: dict[str, str] = {
    "lungs": "models.lungs:Lungs",
    "series-quality": "models.series_quality:SeriesQuality",
}


class UnknownModel(LookupError):
    """No model of that name is built in or installed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnusableModel(ValueError):
    """What is registered under the name is no model, or two packages claim the name."""


def names() -> list[str]:
    """Every name that ``load`` takes, sorted; nothing is imported."""
    return sorted({*BUILT_IN, *_installed()})


def load(name: str) -> Model:
    """Make the model called ``name``.

    Raises
    ------
    UnknownModel
        when there is none
    UnusableModel
        when what is registered keeps not to ``models.base.Model``, or the name is claimed twice
    ImportError
        when its package cannot be imported
    """
    model = _factory(name)()
    if fault := fault_of(model):
        raise UnusableModel(f"model {name!r} {fault}")
    _refuse_other_name(name, model.card)
    return model


def outline(name: str) -> Model | type[Model]:
    """Return something with the card, the needs and the parameters of the model called ``name``.

    That is its class where it has them, so that no weights are loaded; else the model. Raises what
    ``load`` raises.
    """
    factory = _factory(name)
    if not isinstance(factory, type) or fault_of(factory):
        return load(name)
    found: type[Model] = factory
    _refuse_other_name(name, found.card)
    return found


def fault_of(model: object) -> str:
    """Say in which way an object keeps not to ``models.base.Model``; empty when it does."""
    if not isinstance(getattr(model, "card", None), ModelCard) or not callable(
        getattr(model, "predict", None)
    ):
        return "has no card (a ModelCard) or no predict(inputs)"
    needs, parameters = getattr(model, "needs", None), getattr(model, "parameters", None)
    if not isinstance(needs, tuple) or not needs or not all(isinstance(one, Need) for one in needs):
        return f"needs {needs!r}; it must be a tuple of models.base.Need, such as models.base.NEEDS_VOLUME"
    if needs[0].comes_from != "series" or any(one.comes_from == "series" for one in needs[1:]):
        return "must have one need that comes from the series, and have it first"
    if not isinstance(parameters, tuple) or not all(isinstance(one, Parameter) for one in parameters):
        return f"has the parameters {parameters!r}; it must be a tuple of models.base.Parameter, perhaps ()"
    for what, names in (("needs", needs), ("parameters", parameters)):
        if len({one.name for one in names}) < len(names):
            return f"has two {what} of one name"
    return ""


def cards() -> list[ModelCard]:
    """The card of every model, by name. Loads them all; raises what ``load`` raises."""
    return [load(name).card for name in names()]


def _refuse_other_name(name: str, card: ModelCard) -> None:
    if card.name != name:
        raise UnusableModel(f"model {name!r} calls itself {card.name!r}; the two names must be one")


def _factory(name: str) -> Callable[[], Model]:
    installed = _installed().get(name, [])
    if name in BUILT_IN:
        # A package must not put itself silently in the place of a built-in model.
        if installed:
            raise UnusableModel(f"model {name!r} is built in, and {_packages(installed)} claims the name too")
        module, _, attribute = BUILT_IN[name].partition(":")
        return _callable(name, getattr(importlib.import_module(module), attribute))
    if not installed:
        raise UnknownModel(f"there is no model {name!r}; there are {', '.join(names())}")
    if len({point.value for point in installed}) > 1:
        raise UnusableModel(f"model {name!r} is claimed by {_packages(installed)}")
    try:
        return _callable(name, installed[0].load())
    except AttributeError as error:
        raise UnusableModel(f"model {name!r}: {installed[0].value} does not exist: {error}") from error


def _callable(name: str, factory: object) -> Callable[[], Model]:
    if not callable(factory):
        raise UnusableModel(f"model {name!r}: what is registered cannot be called")
    return factory


def _installed() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _packages(points: list[EntryPoint]) -> str:
    names_found = {point.dist.name if point.dist is not None else point.value for point in points}
    return " and ".join(sorted(names_found))
