"""A coarser grid over a volume, for steps that need shapes rather than edges.

Whole blocks of voxels become one coarse voxel, so that what is decided on the coarse grid maps
back to the fine one exactly. All arrays are (slice, row, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

#: Coarse voxels are about so large; a lung's shape needs no more.
TARGET_MM = 1.6


@dataclass(frozen=True)
class CoarseGrid:
    """Blocks of ``factors`` voxels over a grid of ``fine_shape``; the last block may be partial."""

    fine_shape: tuple[int, int, int]
    factors: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def over(cls, fine_shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> CoarseGrid:
        """Choose the factors for a volume of this shape and voxel spacing (slice, row, column)."""
        factors = tuple(max(1, min(8, round(TARGET_MM / one))) for one in spacing_mm)
        coarse = tuple(one * factor for one, factor in zip(spacing_mm, factors, strict=True))
        return cls(fine_shape, (factors[0], factors[1], factors[2]), (coarse[0], coarse[1], coarse[2]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of coarse voxels along each axis."""
        n = [-(-size // factor) for size, factor in zip(self.fine_shape, self.factors, strict=True)]
        return n[0], n[1], n[2]

    @property
    def voxel_ml(self) -> float:
        """Volume of one coarse voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def mean(self, fine: NDArray[Any]) -> NDArray[np.float32]:
        """Mean over each block; the edge is repeated where a block is partial."""
        fz, fy, fx = self.factors
        nz, ny, nx = self.shape
        out = np.empty(self.shape, np.float32)
        pad_y, pad_x = ny * fy - self.fine_shape[1], nx * fx - self.fine_shape[2]
        for k in range(nz):
            slab = fine[k * fz : (k + 1) * fz].mean(axis=0, dtype=np.float32)
            if pad_y or pad_x:
                slab = np.pad(slab, ((0, pad_y), (0, pad_x)), mode="edge")
            out[k] = slab.reshape(ny, fy, nx, fx).mean(axis=(1, 3))
        return out

    def share(self, fine: Mask) -> NDArray[np.float32]:
        """How much of each block is set, 0 to 1."""
        return self.mean(fine)

    def spread(self, coarse: NDArray[Any]) -> NDArray[Any]:
        """Give each fine voxel the value of its block."""
        fz, fy, fx = self.factors
        nz, ny, nx = self.fine_shape
        return coarse.repeat(fz, axis=0)[:nz].repeat(fy, axis=1)[:, :ny].repeat(fx, axis=2)[:, :, :nx]

    def radius(self, millimetres: float) -> tuple[int, int, int]:
        """A radius in coarse voxels along each axis, rounded."""
        n = [round(millimetres / one) for one in self.spacing_mm]
        return n[0], n[1], n[2]


def ball(millimetres: float, spacing_mm: tuple[float, float, float]) -> Mask:
    """All grid steps no longer than ``millimetres``, as a structuring element."""
    reach = [int(millimetres / one) for one in spacing_mm]
    axes = [np.arange(-n, n + 1) * one for n, one in zip(reach, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    element: Mask = z * z + y * y + x * x <= millimetres * millimetres
    return element


def box_of(mask: Mask, margin: tuple[int, int, int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """The smallest box that holds all of ``mask`` (not empty), widened by ``margin`` within the grid."""
    found = []
    for axis in range(3):
        others = tuple(one for one in range(3) if one != axis)
        where = np.flatnonzero(mask.any(axis=others))
        start, stop = int(where[0]) - margin[axis], int(where[-1]) + 1 + margin[axis]
        found.append(slice(max(start, 0), min(stop, mask.shape[axis])))
    return found[0], found[1], found[2]
