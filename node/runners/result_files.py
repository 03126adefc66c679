"""Files of voxels that a program left, brought onto the grid of the input that they are of.

What only seems to find nothing is refused: a mask without the index of its label, probabilities in place of
labels, and a file that does not lie on the series.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Input, Volume
from node.runners import nifti
from node.runners.placement import Interpolation, covered, onto

#: What rounding adds to whole numbers.
_NEARLY = 1e-3
#: The other value of a mask, in programs that know no labels.
_WHITE = 255


def labels(out: Path, name: Any, given: Input, indices: Sequence[int]) -> NDArray[Any]:
    """Read a map of labels, whose values are whole.

    Raises
    ------
    ValueError
        when it is no map of labels, or does not lie on ``given``
    """
    array, affine = _read(out, name)
    whole = _whole(name, array, indices)
    if affine is None:
        return whole
    there = _on_grid(name, whole, affine, given, "nearest", 0.0)
    if not np.isin(there, indices).any():
        # of a fine grid a voxel may lie between those of the series, and that is no fault
        marked = np.isin(whole, indices)
        if marked.any() and not (marked & _within(array.shape, affine, given)).any():
            raise ValueError(f"all that {name!r} marks lies beyond the series")
    return there


def values(out: Path, name: Any, given: Input, outside: float) -> NDArray[Any]:
    """Read an image or a map, interpolated where it lies on another grid; ``outside`` beyond its own.

    Raises
    ------
    ValueError
        when its values are no numbers, or it does not lie on ``given``
    """
    array, affine = _read(out, name)
    return array if affine is None else _on_grid(name, array, affine, given, "linear", outside)


def _read(out: Path, name: Any) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    if not isinstance(name, str) or not name.endswith((".nii", ".nii.gz", ".npy")):
        raise ValueError(f"{name!r} is no name of a .nii, .nii.gz or .npy file")
    path = out / name
    if path.is_symlink() or not path.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{name!r} leads out of the folder of results")
    if not path.is_file():
        raise ValueError(f"there is no file {name!r}")
    array, affine = (
        nifti.read(path) if not name.endswith(".npy") else (np.load(path, allow_pickle=False), None)
    )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} has values of the type {array.dtype}, which are no numbers")
    if not array.size:
        raise ValueError(f"{name!r} has no voxels")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name!r} has values that are no numbers")
    return array, affine


def _whole(name: str, array: NDArray[Any], indices: Sequence[int]) -> NDArray[Any]:
    """Return whole numbers; refuse values that are none, and a mask that no label means."""
    whole = np.rint(array) if array.dtype.kind == "f" else array
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and np.abs(array - whole).max() > _NEARLY:
        raise ValueError(
            f"{name!r} is {low:g} to {high:g} with values between whole numbers, so it is no map of labels"
        )
    if _WHITE not in indices and whole.max() == _WHITE and np.isin(whole, (0, _WHITE)).all():
        raise ValueError(
            f"{name!r} is a mask of 0 and {_WHITE}, and no label has the index {_WHITE}; a voxel has the "
            "index of its label"
        )
    return whole


def _on_grid(
    name: str,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    given: Input,
    interpolation: Interpolation,
    outside: float,
) -> NDArray[Any]:
    if not isinstance(given, Volume):
        raise ValueError("a NIfTI file is of a volume, and the input is none; write a .npy file")
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < len(affine):
        raise ValueError(f"{name!r} does not say where it lies: its affine is no grid")
    if _is_bare(affine) and not _is_bare(given.affine):
        raise ValueError(
            f"{name!r} does not say where it lies: its affine has the lengths of voxels alone, and has to be "
            "that of the volume"
        )
    shape = given.voxels.shape
    is_apart = not covered(shape, given.affine, array.shape, affine).any()
    if is_apart and not _within(array.shape, affine, given).any():
        raise ValueError(f"{name!r} lies wholly beyond the series")
    return onto(array, affine, shape, given.affine, interpolation, outside)


def _within(shape: tuple[int, ...], affine: NDArray[np.float64], given: Input) -> NDArray[np.bool_]:
    """Say of which voxels of a grid the centres lie in a volume."""
    assert isinstance(given, Volume)
    return covered(shape, affine, given.voxels.shape, given.affine)


def _is_bare(affine: NDArray[np.float64]) -> bool:
    """Whether an affine is what software writes that knows of none: positive lengths, and no origin."""
    ras = nifti.ras_of(affine)
    lengths = np.diag(ras)
    return bool((lengths > 0).all()) and np.array_equal(ras, np.diag(lengths))
