"""Makes a model of what a reference names, in the process in which it is to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models import registry
from models.base import Model
from node.catalogue import catalogue, model_folder
from node.catalogue.folder_sense import main_file
from node.catalogue.folder_tables import ModelFolder
from node.config.settings import Device
from node.runners.failures import ModelReplaced
from node.runners.sealed_folder import SealedFolder, SealedModel


def load(reference: str, *, device: Device, threads: int, identity: Sequence[str] = ()) -> Model:
    """Make the model; digests are checked before anything of it is loaded.

    Parameters
    ----------
    reference
        as of ``catalogue.describe``
    device
        where it computes; ``auto`` is a GPU where the runtime finds one, else the CPU
    threads
        that it may use
    identity
        ``Description.identity`` of the model that it has to be

    Raises
    ------
    ModelReplaced
        when it is another one, or its folder was touched while it was loaded
    registry.UnknownModel, registry.UnusableModel
        as ``catalogue.describe`` and ``verify`` do, or when the model cannot be loaded
    ImportError
        when the runtime that it needs is not installed
    """
    if not catalogue.is_folder(reference):
        model = registry.load(reference)
        _refuse_another([model.card.name, model.card.version, model.card.weights_sha256], identity)
        return model
    folder = model_folder.read(Path(reference))
    description = catalogue.of_folder(reference, folder)
    _refuse_another(description.identity, identity)
    # what changes from here on is noticed, what is read while it is loaded, too
    sealed = SealedFolder(description)
    model = _of_folder(folder, device, threads)
    sealed.refuse_touches()
    return SealedModel(model, sealed)


def _refuse_another(found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a model that was replaced since a run was ordered: its results would name the one before."""
    if wanted and [*found] != [*wanted]:
        names = [
            f"{name} {version}" + (f" ({digest[:8]})" if digest else "")
            for name, version, digest in (wanted, found)
        ]
        raise ModelReplaced(f"{names[0]} was replaced by {names[1]} before it was loaded")


def _of_folder(folder: ModelFolder, device: Device, threads: int) -> Model:
    # each runner loads its libraries, and only the one that is needed
    if folder.runner.kind == "python":
        from node.runners.python_file import PythonFileModel

        return PythonFileModel(folder, device=device, threads=threads)
    if folder.runner.kind == "command":
        from node.runners.command import CommandModel

        return CommandModel(folder, device=device, threads=threads)
    if folder.runner.kind == "monai_bundle":
        from node.runners.monai_bundle import BundleModel

        return BundleModel(folder, device=device, threads=threads)
    from node.runners.network import NetworkModel

    path = folder.path / main_file(folder)
    if folder.runner.kind == "onnx":
        from node.runners.onnx_network import OnnxSession

        return NetworkModel(folder, OnnxSession(path, device=device, threads=threads))
    from node.runners.torch_network import TorchSession

    names = dict.fromkeys(one.tensor or one.need.name for one in folder.inputs)
    return NetworkModel(folder, TorchSession(path, list(names), device=device, threads=threads))
