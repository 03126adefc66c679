"""A chest CT whose geometry is known, made from closed shapes.

Nothing here is shared with any analysis: the shapes are defined by formulas, and the
volumes that they report come from the formulas, not from the pixels.

Coordinates are patient coordinates in mm (LPS: x to the patient's left, y to the back,
z to the head), with the origin in the middle of the chest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Point = tuple[float, float, float]

AIR_HU, LUNG_HU, EMPHYSEMA_HU = -1000.0, -870.0, -1010.0
FAT_HU, TISSUE_HU, HEART_HU, VESSEL_HU, NODULE_HU, BONE_HU, MARROW_HU = (
    -95.0,
    45.0,
    40.0,
    40.0,
    35.0,
    700.0,
    200.0,
)
NOISE_HU = 9.0


@dataclass(frozen=True)
class Lung:
    """The part of an ellipsoid that lies above the plane z = ``base_z``.

    ``centre`` and ``radii`` are (x, y, z) in mm.
    """

    centre: Point
    radii: Point
    base_z: float

    @property
    def volume_ml(self) -> float:
        """Closed form: the ellipsoid's upper part, from ``base_z`` to the top."""
        a, b, c = self.radii
        h = min(max(self.centre[2] - self.base_z, -c), c)
        return math.pi * a * b * (2 * c / 3 + h - h**3 / (3 * c**2)) / 1000.0


@dataclass(frozen=True)
class Sphere:
    """A ball; ``centre`` (x, y, z) and ``radius`` in mm."""

    centre: Point
    radius: float

    @property
    def volume_ml(self) -> float:
        """Closed form."""
        return 4 / 3 * math.pi * self.radius**3 / 1000.0


@dataclass(frozen=True)
class Tube:
    """A straight tube from ``start`` to ``end`` with rounded ends; radii in mm."""

    start: Point
    end: Point
    inner_radius: float
    outer_radius: float


@dataclass(frozen=True)
class ChestPhantom:
    """The shapes, and the grid on which they are scanned.

    ``size`` is (slice, row, column), ``spacing_mm`` likewise.
    """

    size: tuple[int, int, int] = (120, 512, 512)
    spacing_mm: tuple[float, float, float] = (2.5, 0.75, 0.75)
    seed: int = 7
    left_lung: Lung = Lung(centre=(78.0, 2.0, -55.0), radii=(58.0, 88.0, 170.0), base_z=-105.0)
    right_lung: Lung = Lung(centre=(-80.0, 2.0, -50.0), radii=(62.0, 90.0, 165.0), base_z=-95.0)
    emphysema: tuple[Sphere, ...] = (
        Sphere((80.0, -8.0, 45.0), 24.0),
        Sphere((66.0, 30.0, -20.0), 20.0),
        Sphere((-84.0, 4.0, 40.0), 26.0),
    )
    nodules: tuple[Sphere, ...] = (
        Sphere((92.0, -30.0, -30.0), 6.0),
        Sphere((-92.0, 34.0, -10.0), 8.0),
        Sphere((-70.0, -36.0, -48.0), 4.5),
    )
    airways: tuple[Tube, ...] = (
        Tube((0.0, 12.0, 400.0), (0.0, 12.0, 42.0), 8.5, 10.5),
        Tube((0.0, 12.0, 42.0), (17.0, 14.0, 14.0), 6.0, 7.5),
        Tube((0.0, 12.0, 42.0), (-15.0, 14.0, 18.0), 6.5, 8.0),
    )
    vessels: tuple[Tube, ...] = field(default_factory=lambda: _vessels())

    @property
    def lungs(self) -> dict[str, Lung]:
        """By the name under which each is reported."""
        return {"left": self.left_lung, "right": self.right_lung}

    def volume_ml(self, side: str) -> float:
        """Volume inside the lung's surface: vessels, nodules and emphysema are part of it."""
        return self.lungs[side].volume_ml

    def emphysema_ml(self, side: str) -> float:
        """Volume of the low-density regions of one lung; they do not overlap."""
        sign = 1 if side == "left" else -1
        return sum(ball.volume_ml for ball in self.emphysema if sign * ball.centre[0] > 0)

    def position(self, index: int) -> Point:
        """Centre of the first voxel of slice ``index`` (Image Position (Patient)), feet first."""
        slices, rows, columns = self.size
        dz, dy, dx = self.spacing_mm
        return (
            -(columns - 1) / 2 * dx,
            -(rows - 1) / 2 * dy,
            (index - (slices - 1) / 2) * dz,
        )

    def slices(self) -> Iterator[NDArray[np.int16]]:
        """Yield each slice (row, column) in HU, from feet to head."""
        noise = np.random.default_rng(self.seed)
        for index in range(self.size[0]):
            image = self._slice(index)
            image += noise.normal(0.0, NOISE_HU, image.shape).astype(np.float32)
            yield np.clip(np.rint(image), -1024, 3071).astype(np.int16)

    def _slice(self, index: int) -> Array:
        """One slice without noise: each shape is painted with the part of the voxel that it fills."""
        x0, y0, z = self.position(index)
        _, rows, columns = self.size
        dz, dy, dx = self.spacing_mm
        x = (x0 + dx * np.arange(columns, dtype=np.float32))[None, :]
        y = (y0 + dy * np.arange(rows, dtype=np.float32))[:, None]
        soft = (dx * dy * dz) ** (1 / 3)
        image = np.full((rows, columns), AIR_HU, np.float32)

        def paint(distance_mm: Array, value: float) -> None:
            share = np.clip(0.5 - distance_mm / soft, 0.0, 1.0)
            np.add(image, share * (value - image), out=image)

        paint(_ellipse(x, y, (0.0, 0.0), (172.0, 122.0)), FAT_HU)
        paint(_ellipse(x, y, (0.0, 0.0), (160.0, 110.0)), TISSUE_HU)
        paint(_ellipsoid(x, y, z, (6.0, -48.0, -45.0), (14.0, 34.0, 52.0)), HEART_HU)
        self._paint_bones(x, y, z, paint)
        for lung in self.lungs.values():
            inside = _ellipsoid(x, y, z, lung.centre, lung.radii)
            # the base is flat: partial volume along z alone
            above = np.float32(-(z - lung.base_z) / dz * soft)
            paint(np.maximum(inside, above), LUNG_HU)
        for vessel in _crossing(self.vessels, z, dz):
            paint(_tube(x, y, z, vessel, vessel.outer_radius), VESSEL_HU)
        for ball in _near(self.emphysema, z, dz):
            paint(_ball(x, y, z, ball), EMPHYSEMA_HU)
        for ball in _near(self.nodules, z, dz):
            paint(_ball(x, y, z, ball), NODULE_HU)
        airways = _crossing(self.airways, z, dz)
        for airway in airways:
            paint(_tube(x, y, z, airway, airway.outer_radius), TISSUE_HU)
        for airway in airways:
            paint(_tube(x, y, z, airway, airway.inner_radius), AIR_HU)
        return image

    @staticmethod
    def _paint_bones(x: Array, y: Array, z: float, paint: Callable[[Array, float], None]) -> None:
        paint(_ellipse(x, y, (0.0, 84.0), (19.0, 16.0)), BONE_HU)
        paint(_ellipse(x, y, (0.0, 84.0), (15.0, 12.0)), MARROW_HU)
        paint(_ellipse(x, y, (0.0, 102.0), (7.0, 5.0)), TISSUE_HU)
        paint(_ellipse(x, y, (0.0, -104.0), (17.0, 5.0)), BONE_HU)
        outer = _ellipse(x, y, (0.0, 0.0), (155.0, 105.0))
        inner = _ellipse(x, y, (0.0, 0.0), (147.0, 99.0))
        # ribs slope down towards the front, one every 26 mm
        height = (z + 0.25 * y) % 26.0 - 13.0
        ribs = np.maximum(np.maximum(outer, -inner), np.abs(height) - 5.0)
        paint(ribs.astype(np.float32), BONE_HU)


def _vessels() -> tuple[Tube, ...]:
    """Thin vessels that run from the hilum into each lung and end inside it."""
    tubes = []
    for sign in (1.0, -1.0):
        hilum = (sign * 40.0, 8.0, 0.0)
        for dx, dy, dz, radius in (
            (62.0, -38.0, -42.0, 2.2),
            (58.0, 34.0, -30.0, 2.4),
            (50.0, 6.0, 20.0, 1.8),
            (46.0, -30.0, 12.0, 1.6),
            (66.0, 10.0, -60.0, 2.0),
        ):
            end = (hilum[0] + sign * dx, hilum[1] + dy, hilum[2] + dz)
            tubes.append(Tube(hilum, end, 0.0, radius))
    return tuple(tubes)


def _near(balls: tuple[Sphere, ...], z: float, margin: float) -> list[Sphere]:
    """Only the balls that a slice at ``z`` can show."""
    return [ball for ball in balls if abs(z - ball.centre[2]) <= ball.radius + margin]


def _crossing(tubes: tuple[Tube, ...], z: float, margin: float) -> list[Tube]:
    """Only the tubes that a slice at ``z`` can show."""
    return [
        tube
        for tube in tubes
        if min(tube.start[2], tube.end[2]) - tube.outer_radius - margin
        <= z
        <= max(tube.start[2], tube.end[2]) + tube.outer_radius + margin
    ]


# Signed distances to each surface in mm, negative inside; exact for balls and tubes, first order
# for ellipsoids, which is what the half-voxel edge needs.


def _ellipse(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    level = np.sqrt(u * u + v * v)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2) / np.maximum(level, 1e-6)
    return (level - 1.0) / np.maximum(slope, 1e-6)


def _ellipsoid(x: Array, y: Array, z: float, centre: Point, radii: Point) -> Array:
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    w = (z - centre[2]) / radii[2]
    level: Array = np.sqrt(u * u + v * v + np.float32(w * w))
    flat = (u / radii[0]) ** 2 + (v / radii[1]) ** 2
    slope: Array = np.sqrt(flat + np.float32((w / radii[2]) ** 2)) / np.maximum(level, 1e-6)
    return (level - 1.0) / np.maximum(slope, 1e-6)


def _ball(x: Array, y: Array, z: float, ball: Sphere) -> Array:
    cx, cy, cz = ball.centre
    distance: Array = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + np.float32((z - cz) ** 2))
    return distance - np.float32(ball.radius)


def _tube(x: Array, y: Array, z: float, tube: Tube, radius: float) -> Array:
    start, end = np.asarray(tube.start), np.asarray(tube.end)
    axis = end - start
    along = (x - start[0]) * axis[0] + (y - start[1]) * axis[1] + (z - start[2]) * axis[2]
    t = np.clip(along / float(axis @ axis), 0.0, 1.0)
    across = [offset - start[i] - t * axis[i] for i, offset in enumerate((x, y, np.float32(z)))]
    distance: Array = np.sqrt(sum(part * part for part in across)).astype(np.float32)
    return distance - np.float32(radius)
