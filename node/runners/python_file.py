"""A model that is a Python file of its folder: ``entry = "model.py:Class"``.

The class is called with those of ``folder`` (a Path), ``device`` and ``threads`` that it has parameters
for. What it makes has ``predict(inputs)``, as ``models.base.Model`` says; its card, needs and parameters
stand in ``analysis.toml``.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import Any, NoReturn

from models.registry import UnusableModel
from models.types import Findings, Inputs
from node.catalogue.folder_tables import ModelFolder
from node.config.settings import Device
from node.runners.conclusions import concluded
from node.runners.failures import NotAsAgreed

_MODULE = "anode_model_of_folder"


class _SourceAlone(SourceFileLoader):
    """Loads a module from its source, never from what Python compiled of it earlier.

    That is not pinned: who can write into the folder could leave other code there.
    """

    def path_stats(self, path: str) -> NoReturn:
        """Know nothing that a compiled file could be compared with, so none is read or written."""
        raise OSError(f"{path} is read as source alone")


def import_from(folder: Path) -> None:
    """Let modules of ``folder`` be imported, from their source alone."""
    root = str(folder)
    if root in sys.path:
        return

    def finder_of(path: str) -> FileFinder:
        if path != root and not path.startswith(root + os.sep):
            raise ImportError(path)
        return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceAlone, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, finder_of)
    sys.path_importer_cache.pop(root, None)
    sys.path.insert(0, root)


class PythonFileModel:
    """The model of a folder whose runner is ``python``.

    Raises
    ------
    UnusableModel
        when the file cannot be imported, or has no such class
    """

    def __init__(self, folder: ModelFolder, *, device: Device, threads: int) -> None:
        self.card = folder.card
        self.needs = tuple(one.need for one in folder.inputs)
        self.parameters = folder.parameters
        self._folder = folder
        file, _, attribute = folder.runner.entry.partition(":")
        import_from(folder.path)
        made = _made(folder.path / file, attribute, folder=folder.path, device=device, threads=threads)
        if not callable(getattr(made, "predict", None)):
            raise UnusableModel(f"{folder.path / file}: {attribute} has no predict(inputs)")
        self._model = made

    def predict(self, inputs: Inputs) -> Findings:
        """Return what the model finds, with the measurements and checks of its folder."""
        findings: Findings = self._model.predict(inputs)
        if not isinstance(findings, Findings):
            raise NotAsAgreed(f"predict returned {type(findings).__name__} instead of Findings")
        return concluded(self._folder, inputs, findings, {})


def _made(path: Path, attribute: str, **offered: Any) -> Any:
    spec = importlib.util.spec_from_file_location(_MODULE, path, loader=_SourceAlone(_MODULE, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
        factory = getattr(module, attribute, None)
        if factory is None:
            raise UnusableModel(f"{path} has no {attribute}")
        taken = inspect.signature(factory).parameters
        return factory(**{name: value for name, value in offered.items() if name in taken})
    except UnusableModel:
        raise
    except (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError,
            SyntaxError, TypeError, ValueError) as error:  # fmt: skip
        raise UnusableModel(f"{path}: {attribute} cannot be made: {type(error).__name__}: {error}") from error
