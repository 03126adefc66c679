"""Every model that an analysis can name: built in, from another package, or a folder with ``analysis.toml``.

A *reference* is the name of a model (``models.registry``), or the absolute path of a model folder
(``node.catalogue.model_folder``). ``describe`` says what a model is without loading its weights;
``node.runners.loading`` makes it, in the process in which it is to run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import registry
from models.base import ModelCard, Need, Parameter
from models.types import ParameterValue
from node.catalogue import folder_names, model_folder, parameters, pinned_files
from node.catalogue.folder_tables import ModelFolder, RunnerKind
from node.catalogue.pinned_files import PinnedFile
from node.config.config_values import suggestion

LOADING_FAILURES = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError,
                    SyntaxError, TypeError, ValueError)  # fmt: skip
"""What the constructor of a model from another package may raise."""


@dataclass(frozen=True)
class Description:
    """What a model is, known without its weights.

    ``folder`` is that of a model folder, None for a name; ``files`` are then what has to be in it,
    ``unpinned`` what else may be, and ``stated_sha256`` is the digest of its ``analysis.toml``. ``askable``
    are names that ``when`` of a later analysis can ask for, each with what it is; the model may find more.
    """

    reference: str
    kind: RunnerKind
    card: ModelCard
    needs: tuple[Need, ...]
    parameters: tuple[Parameter, ...]
    folder: Path | None = None
    files: tuple[PinnedFile, ...] = ()
    unpinned: tuple[str, ...] = ()
    stated_sha256: str = ""
    askable: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> list[str]:
        """Name, version and digest of the weights: what results say of the model."""
        return [self.card.name, self.card.version, self.card.weights_sha256]


def is_folder(reference: str) -> bool:
    """Whether a reference is the path of a folder, not a name."""
    return os.sep in reference


def names() -> list[str]:
    """Every name that a model is built in or installed under, sorted; nothing is imported."""
    return registry.names()


def describe(reference: str) -> Description:
    """Say what the model is that ``reference`` names; no weights are loaded.

    Raises
    ------
    registry.UnknownModel
        when there is no such model or folder
    registry.UnusableModel
        when what is there is no model; every fault of an ``analysis.toml`` with its line
    """
    if is_folder(reference):
        return of_folder(reference, model_folder.read(Path(reference)))
    known = names()
    if reference not in known:
        hint = suggestion(reference, known) or f"; there are {', '.join(known)}"
        raise registry.UnknownModel(f"there is no model '{reference}'{hint}")
    try:
        outline = registry.outline(reference)
    except registry.UnusableModel:
        raise
    except LOADING_FAILURES as error:
        raise registry.UnusableModel(f"model '{reference}' cannot be loaded: {error}") from error
    return Description(reference, "python", outline.card, outline.needs, outline.parameters)


def of_folder(reference: str, folder: ModelFolder) -> Description:
    """Say what the model is of a folder that was read."""
    return Description(
        reference,
        folder.runner.kind,
        folder.card,
        tuple(one.need for one in folder.inputs),
        folder.parameters,
        folder.path,
        folder.runner.files,
        folder.runner.unpinned,
        folder.stated_sha256,
        tuple(folder_names.askable(folder)),
    )


def verify(description: Description) -> None:
    """Check that every file of the model is there and is the one that was pinned, and that there is no other.

    Raises
    ------
    registry.UnusableModel
        naming each file that is missing, another one or not pinned, and what to do
    """
    if found := faults(description):
        raise registry.UnusableModel("; ".join(found))


def faults(description: Description) -> list[str]:
    """Say which files of the model are missing, are others, or are not pinned."""
    folder = description.folder
    if folder is None:
        return []
    found = pinned_files.faults(folder, description.files)
    found += unpinned(description)
    try:
        is_as_stated = pinned_files.digest_of(folder / pinned_files.STATED) == description.stated_sha256
    except OSError as error:
        return [*found, f"{folder / pinned_files.STATED} cannot be read: {error.strerror}"]
    return found if is_as_stated else [*found, f"{folder / pinned_files.STATED} is another one than was read"]


def all_faults(reference: str) -> list[str]:
    """Say everything that is wrong with a model, of its files also where its tables have faults.

    Raises
    ------
    registry.UnknownModel
        when there is no such model or folder
    """
    try:
        return faults(describe(reference))
    except model_folder.FolderFaults as error:
        of_files = [one for one in error.pins if one.sha256]
        found = pinned_files.faults(Path(reference), of_files)
        found += pinned_files.unpinned(Path(reference), error.pins, error.unpinned)
        return [*error.problems, *found]
    except registry.UnusableModel as error:
        return str(error).splitlines()


def unpinned(description: Description) -> list[str]:
    """Say what lies in the folder of the model and is not pinned; cheap, unlike ``faults``."""
    if description.folder is None:
        return []
    return pinned_files.unpinned(description.folder, description.files, description.unpinned)


def read_parameters(description: Description, given: Mapping[str, Any]) -> dict[str, ParameterValue]:
    """Return a value for each parameter of the model: what was given, else its default.

    Raises
    ------
    parameters.ParameterFaults
        a ValueError that says for each key what is wrong with it
    """
    return parameters.read(description.parameters, given)
