"""Arrays of three axes as the tensors of a network, and its tensors as arrays again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.runners.failures import FolderFault

#: An answer of a network: a tensor, or a list of tables as classifiers of scikit-learn give them.
Answer = Any


@dataclass(frozen=True)
class Answers:
    """What a network said of one array.

    ``of_each`` has the tensors of each run: one run when the network takes volumes, one for each index of
    the first axis when it takes images. ``takes_slices`` says which.
    """

    of_each: Sequence[Mapping[str, Answer]]
    takes_slices: bool

    def spatial(self, name: str, layout: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the tensor ``name`` as (channel, axis 0, axis 1, axis 2), the last three being ``shape``.

        Raises
        ------
        FolderFault
            when it has another shape, or values that are no numbers
        """
        parts = [to_channels(numbers(one, name), layout, name) for one in self.of_each]
        array = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        if array.shape[1:] != shape:
            raise FolderFault(
                f"the tensor '{name}' is {array.shape[1:]}, and what the network was given {shape}"
            )
        return array

    def mean(self, name: str) -> NDArray[np.float64]:
        """Return the tensor ``name`` flat, the mean over all runs."""
        flat = [numbers(one, name).astype(np.float64).reshape(-1) for one in self.of_each]
        if len({one.size for one in flat}) != 1:
            raise FolderFault(f"the tensor '{name}' has not the same length for each slice")
        return np.mean(flat, axis=0)


def answer_called(tensors: Mapping[str, Answer], name: str) -> Answer:
    """Return what a network calls ``name``; raises FolderFault when there is nothing."""
    if name not in tensors:
        raise FolderFault(f"the network returned no '{name}'; it returned {', '.join(tensors)}")
    return tensors[name]


def numbers(tensors: Mapping[str, Answer], name: str) -> NDArray[Any]:
    """Return a tensor; raises FolderFault when it is none, or has values that are no numbers."""
    tensor = answer_called(tensors, name)
    if not isinstance(tensor, np.ndarray) or tensor.dtype.kind not in "biuf":
        raise FolderFault(f"'{name}' is no tensor of numbers")
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise FolderFault(f"the tensor '{name}' has values that are no numbers")
    return tensor


def to_tensor(array: NDArray[Any], layout: str, dtype: str) -> NDArray[Any]:
    """Return an array (axis 0, axis 1, axis 2[, sample]) as a tensor.

    A layout without D takes an array whose first axis has the length 1.
    """
    named = "DHWC" if array.ndim == 4 else "DHW"
    if "D" not in layout:
        array, named = array[0], named[1:]
    if "C" in named and "C" not in layout:
        raise FolderFault(f"the layout {layout} has no room for colour")
    for letter in "NC":
        if letter in layout and letter not in named:
            array, named = array[np.newaxis], letter + named
    turned = array.transpose([named.index(letter) for letter in layout])
    return np.ascontiguousarray(in_type(turned, dtype))


def in_type(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return numbers in another type; to whole ones they are rounded.

    Raises
    ------
    FolderFault
        when the type cannot hold one of them
    """
    wanted = np.dtype(dtype)
    if array.dtype == wanted or not array.size:
        return array.astype(wanted, copy=False)
    is_whole = wanted.kind in "iu"
    if is_whole and array.dtype.kind == "f":
        array = np.rint(array)
    least, most = _bounds(wanted)
    low, high = array.min().item(), array.max().item()
    # so that a value that is no number is refused, too
    if not (low >= least and high <= most):
        raise FolderFault(
            f"the network takes {wanted.name}, which cannot hold values of {low:g} to {high:g}; 'normalise' "
            "of its [[input]] has to bring them there"
        )
    return array.astype(wanted)


def _bounds(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind in "iu":
        whole = np.iinfo(dtype)
        return int(whole.min), int(whole.max)
    real = np.finfo(dtype)
    return float(real.min), float(real.max)


def to_channels(tensor: NDArray[Any], layout: str, name: str) -> NDArray[Any]:
    """Return a tensor as (channel, axis 0, axis 1, axis 2); what it lacks of these has the length 1."""
    named = layout
    # label maps often have no axis of channels, and some networks drop that of batches
    for letter in "CN":
        if tensor.ndim < len(named):
            named = named.replace(letter, "")
    if tensor.ndim != len(named):
        raise FolderFault(f"the tensor '{name}' has {tensor.ndim} axes, and its layout is {layout}")
    if "N" in named:
        axis = named.index("N")
        if tensor.shape[axis] != 1:
            raise FolderFault(f"the tensor '{name}' has a batch of {tensor.shape[axis]}, not of 1")
        tensor, named = np.take(tensor, 0, axis), named.replace("N", "")
    for letter in "DC":
        if letter not in named:
            tensor, named = tensor[np.newaxis], letter + named
    return tensor.transpose([named.index(letter) for letter in "CDHW"])


def activated(scores: NDArray[Any], activation: str) -> NDArray[Any]:
    """Return scores, channels first, as the probabilities that ``activation`` makes of them."""
    if activation == "sigmoid":
        with np.errstate(over="ignore"):
            return (1.0 / (1.0 + np.exp(-scores.astype(np.float32)))).astype(np.float32)
    if activation == "softmax":
        exponents = np.exp(scores.astype(np.float32) - scores.max(axis=0).astype(np.float32))
        exponents /= exponents.sum(axis=0)
        return exponents
    return scores
