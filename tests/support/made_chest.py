"""A small chest CT made of blocks and ellipses, for the lungs' tests; truth is counted in voxels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Volume

Mask = NDArray[np.bool_]
SPACING_MM = (4.0, 2.6, 2.6)
SIZE = (75, 116, 146)


@dataclass
class Chest:
    """Voxels in HU (slice from feet to head, row to the back, column to the patient's left)."""

    voxels: NDArray[np.int16]
    left: Mask
    right: Mask
    airways: Mask
    spacing_mm: tuple[float, float, float] = SPACING_MM
    affine: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        dz, dy, dx = self.spacing_mm
        if not self.affine.size:
            self.affine = np.array(
                [[0, 0, dx, -SIZE[2]], [0, dy, 0, -SIZE[1]], [dz, 0, 0, -100], [0, 0, 0, 1]], np.float64
            )

    def volume(self, **changes: Any) -> Volume:
        facts: dict[str, Any] = {
            "voxels": self.voxels,
            "affine": self.affine,
            "spacing_mm": self.spacing_mm,
            "unit": "[hnsf'U]",
            "header": {"Modality": "CT"},
        }
        return Volume(**{**facts, **changes})

    def ml(self, mask: Mask) -> float:
        return float(np.count_nonzero(mask) * np.prod(self.spacing_mm) / 1000)


def coordinates() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(z, y, x) in mm of every voxel, from the middle of the volume."""
    return tuple(  # type: ignore[return-value]
        np.meshgrid(
            *((np.arange(n) - (n - 1) / 2) * d for n, d in zip(SIZE, SPACING_MM, strict=True)),
            indexing="ij",
            sparse=True,
        )
    )


def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
    """(z, y, x) in mm."""
    inside = sum(((one - c) / r) ** 2 for one, c, r in zip(coordinates(), centre, radii, strict=True))
    found: Mask = np.asarray(inside) <= 1
    return found


def ball(centre: tuple[float, float, float], radius: float) -> Mask:
    return ellipsoid(centre, (radius, radius, radius))


def chest(*, touching: bool = False, airways: bool = True) -> Chest:
    """Two lungs with a trachea and main bronchi that end at their inner sides."""
    z, y, x = coordinates()
    voxels = np.full(SIZE, -1000.0, np.float32)
    voxels[np.broadcast_to((y / 125) ** 2 + (x / 170) ** 2 <= 1, SIZE)] = 45
    gap = 0 if touching else 12
    left = ellipsoid((-20, 0, 70 + gap), (100, 80, 60)) & (z > -90)
    right = ellipsoid((-20, 0, -70 - gap), (105, 82, 62)) & (z > -84)
    if touching:
        # They meet in a thin sheet in front, as real lungs do.
        bridge = (np.abs(y + 45) < 12) & (np.abs(x) < 32) & (np.abs(z + 10) < 30)
        left |= np.broadcast_to(bridge & (x >= 0), SIZE) & ~right
        right |= np.broadcast_to(bridge & (x < 0), SIZE) & ~left
    voxels[left | right] = -860
    tubes = np.zeros(SIZE, np.bool_)
    if airways:
        wall = np.zeros(SIZE, np.bool_)
        for widen, into in ((4.5, wall), (0.0, tubes)):
            into |= np.broadcast_to((z > 30) & (np.hypot(y - 10, x) <= 9 + widen), SIZE)
            for sign in (-1, 1):
                along = np.clip((40 - z) / 25, 0, 1)
                offset = np.hypot(y - 10, x - sign * 14 * along)
                into |= np.broadcast_to((z <= 40) & (z >= 15) & (offset <= 6.5 + widen), SIZE)
        voxels[wall] = 45
        voxels[tubes] = -1000
        left, right = left & ~wall, right & ~wall
    noise = np.random.default_rng(5).normal(0, 12, SIZE)
    return Chest(np.rint(voxels + noise).astype(np.int16), left, right, tubes)
