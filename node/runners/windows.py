"""A network that sees a part at a time: overlapping windows, and their answers joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.catalogue.folder_tables import Sliding
from node.runners.failures import FolderFault

Arrays = Mapping[str, NDArray[Any]]


def slide(
    arrays: Arrays, axes: Sequence[int], sliding: Sliding, predict: Callable[[Arrays], Arrays]
) -> Arrays:
    """Run ``predict`` on windows of ``arrays`` and join what it says.

    Parameters
    ----------
    arrays
        tensors that have the same lengths along ``axes``, each at least as long as the window
    axes
        which axes of every tensor, and of every answer, the window moves along
    sliding
        the window, its overlap, and how the answers of several are weighed

    Raises
    ------
    FolderFault
        when an answer has not the lengths of the window
    """
    shape = [next(iter(arrays.values())).shape[axis] for axis in axes]
    weights = _weights(sliding)
    sums: dict[str, NDArray[np.float32]] = {}
    total = np.zeros(shape, np.float32)
    for corner in windows(shape, sliding):
        there = tuple(slice(first, first + length) for first, length in zip(corner, sliding.roi, strict=True))
        answers = predict({name: array[_at(array.ndim, axes, there)] for name, array in arrays.items()})
        total[there] += weights
        for name, answer in answers.items():
            lengths = tuple(answer.shape[axis] for axis in axes) if answer.ndim > max(axes) else ()
            if lengths != sliding.roi:
                raise FolderFault(
                    f"the tensor '{name}' is {answer.shape}, a window {sliding.roi}: they cannot be joined"
                )
            if name not in sums:
                whole = list(answer.shape)
                for axis, length in zip(axes, shape, strict=True):
                    whole[axis] = length
                sums[name] = np.zeros(whole, np.float32)
            sums[name][_at(answer.ndim, axes, there)] += answer * _spread(weights, answer.ndim, axes)
    for array in sums.values():
        array /= _spread(total, array.ndim, axes)
    return sums


def windows(shape: Sequence[int], sliding: Sliding) -> Iterator[tuple[int, ...]]:
    """Say where the windows begin: they cover all, the last ones end with the array."""
    starts = []
    for length, size in zip(shape, sliding.roi, strict=True):
        step = max(1, int(size * (1 - sliding.overlap)))
        last = length - size
        if last < 0:
            raise FolderFault(f"the array is shorter than the window: {length} and {size}")
        starts.append(sorted({*range(0, last, step), last}))
    yield from product(*starts)


def _weights(sliding: Sliding) -> NDArray[np.float32]:
    if sliding.mode == "constant":
        return np.ones(sliding.roi, np.float32)
    weights = np.ones(sliding.roi, np.float64)
    for axis, size in enumerate(sliding.roi):
        # an eighth of the window, as is usual
        at = (np.arange(size) - (size - 1) / 2) / (size / 8)
        weights *= np.exp(-0.5 * at**2).reshape([-1 if one == axis else 1 for one in range(len(sliding.roi))])
    return np.maximum(weights, weights.max() * 1e-3).astype(np.float32)


def _at(ndim: int, axes: Sequence[int], there: tuple[slice, ...]) -> tuple[slice, ...]:
    index = [slice(None)] * ndim
    for axis, part in zip(axes, there, strict=True):
        index[axis] = part
    return tuple(index)


def _spread(weights: NDArray[np.float32], ndim: int, axes: Sequence[int]) -> NDArray[np.float32]:
    """Give ``weights`` axes of length one beside ``axes``."""
    lengths = dict(zip(axes, weights.shape, strict=True))
    return weights.reshape([lengths.get(axis, 1) for axis in range(ndim)])
