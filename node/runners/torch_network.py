"""Networks of PyTorch, as ``torch.export`` (``.pt2``) or TorchScript (``.pt``, ``.ts``) saves them.

Both hold the network's code in a form of their own, not a pickle of Python objects: a file that needs one
is refused.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.registry import UnusableModel
from node.config.settings import Device
from node.runners.network import TensorKind, Tensors
from node.runners.tensors import Answer


def prepared_device(device: Device, threads: int, path: Path) -> Any:
    """Set threads and seeds, and return the ``torch.device`` to compute on.

    Raises
    ------
    UnusableModel
        when torch is not installed, or a GPU is demanded and there is none
    """
    try:
        import torch
    except ImportError as error:
        raise UnusableModel(f"{path} needs PyTorch: install anode with the extra 'torch'") from error

    # torch.export unpickles what a file says is pickled, unless nothing but tensors may be
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        # it can be set once in a process, before the first parallel work
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    # a GPU rounds as the processor does, and repeats itself
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # some operations have no deterministic form on a GPU: they warn rather than fail
    torch.use_deterministic_algorithms(True, warn_only=True)
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UnusableModel(f"{path}: device is cuda, and PyTorch finds no GPU here")
    return torch.device("cuda" if has_gpu and device != "cpu" else "cpu")


class TorchSession:
    """A network in one file.

    Parameters
    ----------
    path
        of the file
    names
        what the [[input]] tables call the tensors, in the order of the network's arguments
    device, threads
        as of ``prepared_device``

    Raises
    ------
    UnusableModel
        when the file is none that is loaded here, or cannot be loaded
    """

    def __init__(self, path: Path, names: Sequence[str], *, device: Device, threads: int) -> None:
        self._device = prepared_device(device, threads, path)
        self.inputs = [TensorKind(name) for name in names]
        self.outputs: list[str] = []
        self._network = _exported(path) if path.suffix == ".pt2" else scripted(path)
        self._network.to(self._device)

    def run(self, tensors: Tensors) -> Mapping[str, Answer]:
        """Run the network; what it returns is called by its keys, or by numbers from ``"0"``."""
        import torch

        # a network that draws lots draws the same ones for the same input
        torch.manual_seed(0)
        given = [torch.from_numpy(tensors[one.name]).to(self._device) for one in self.inputs]
        with torch.inference_mode():
            answer = self._network(*given)
        named = _named(answer)
        return {name: np.asarray(one.detach().to("cpu").numpy()) for name, one in named.items()}


def _exported(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            program = torch.export.load(path)
        return program.module()
    except (
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        OSError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise UnusableModel(f"{path} cannot be loaded: {_first_line(error)}") from error


def scripted(path: Path) -> Any:
    """Load a TorchScript file; raises UnusableModel when it is none."""
    import torch

    if not _is_torchscript(path):
        raise UnusableModel(
            f"{path} is no TorchScript: it may be a pickle, which can run anything and is never loaded; "
            "save the network by torch.export.save or torch.jit.save"
        )
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated, and many published networks are TorchScript
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise UnusableModel(f"{path} cannot be loaded: {_first_line(error)}") from error
    network.eval()
    return network


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with compiled code: those that ``torch.save`` writes have none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _named(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Mapping):
        return {str(key): one for key, one in answer.items()}
    if isinstance(answer, list | tuple):
        return {str(number): one for number, one in enumerate(answer)}
    return {"0": answer}


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
