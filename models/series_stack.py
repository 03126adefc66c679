"""The slices of a series as a stack: how they are spaced, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.series_faults import DUPLICATE, MISSING, NO_UNITS, UNEVEN, Finding, listed
from models.types import Code, HeaderValue, InstanceView, Measurement, Series

SLICES = Code("QC-SLICES", "99ANODE", "Number of slices")
SPACING = Code("112226", "DCM", "Spacing between slices")
MEDIAN = Code("373099004", "SCT", "Median")
MILLIMETRE = Code("mm", "UCUM", "millimeter")

SAME_DIRECTION = 1e-3
SAME_PLACE_MM = 0.01
SAME_GAP = 0.01


class Stack:
    """Frames that are parallel slices, with their places along the normal (mm), in order."""

    def __init__(self, along: NDArray[np.float64], names: Sequence[str]) -> None:
        order = np.argsort(along, kind="stable")
        self._along = along[order]
        self._names = [names[index] for index in order]

    @classmethod
    def of(cls, series: Series) -> Stack | None:
        """The stack of a series; None when its frames lie nowhere, or not parallel."""
        places, names, found = [], [], []
        for one in series.instances:
            positions, own = _positions(one), directions(one)
            if not positions or len(own) != len(positions):
                return None
            places += positions
            found += own
            single = len(positions) == 1
            names += [
                f"instance {one.number}" if single else f"frame {frame + 1} of instance {one.number}"
                for frame in range(len(positions))
            ]
        if len(places) < 2 or np.abs(np.stack(found) - found[0]).max() > SAME_DIRECTION:
            return None
        normal = np.cross(found[0][:3], found[0][3:])
        return cls(np.stack(places) @ normal, names)

    def measurements(self) -> list[Measurement]:
        """Number of slices, and the median distance between neighbours."""
        gaps = self._gaps()
        found = [Measurement(SLICES, float(gaps.size + 1), NO_UNITS)]
        if gaps.size:
            spacing = round(float(np.median(gaps)), 4)
            found.append(Measurement(SPACING, spacing, MILLIMETRE, derivation=MEDIAN))
        return found

    def faults(self) -> Iterator[Finding]:
        """Several images at one place, holes, and gaps that are neither."""
        gaps = np.diff(self._along)
        same = gaps <= SAME_PLACE_MM
        places = int((~same).sum()) + 1
        if same.any():
            pairs = [self._pair(index) for index in np.flatnonzero(same).tolist()]
            text = f"{len(self._along)} images lie at {places} places"
            if len(self._along) % places == 0 and places > 1 and self._is_even_repetition(same):
                text += f", {len(self._along) // places} at each (phases or echoes in one series?)"
            yield DUPLICATE, f"{text}: {listed(pairs)}"
        real = gaps[~same]
        if real.size < 2:
            return
        usual = float(np.median(real))
        for index in np.flatnonzero(~same & (np.abs(gaps - usual) > _tolerance_mm(usual))).tolist():
            times = gaps[index] / usual
            if round(times) >= 2 and abs(times - round(times)) < 0.05:
                count = round(times) - 1
                what = "1 slice is" if count == 1 else f"{count} slices are"
                yield MISSING, f"{what} missing between {self._pair(index)}"
            else:
                yield UNEVEN, f"{gaps[index]:.2f} mm instead of {usual:.2f} mm between {self._pair(index)}"

    def _is_even_repetition(self, same: NDArray[np.bool_]) -> bool:
        starts = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        return len(set(np.diff(starts).tolist())) == 1

    def _gaps(self) -> NDArray[np.float64]:
        gaps = np.diff(self._along)
        real: NDArray[np.float64] = gaps[gaps > SAME_PLACE_MM]
        return real

    def _pair(self, index: int) -> str:
        return f"{self._names[index]} and {self._names[index + 1]}"


def _tolerance_mm(usual: float) -> float:
    """Room for coordinates that were rounded to a tenth of a millimetre."""
    return max(SAME_GAP * usual, min(0.11, 0.2 * usual))


def _positions(one: InstanceView) -> list[NDArray[np.float64]]:
    return _vectors(one, "FramePositions", "ImagePositionPatient", 3)


def directions(one: InstanceView) -> list[NDArray[np.float64]]:
    """Directions of rows and columns of each frame; empty when they are not all known."""
    return _vectors(one, "FrameOrientations", "ImageOrientationPatient", 6)


def _vectors(one: InstanceView, of_frames: str, of_image: str, count: int) -> list[NDArray[np.float64]]:
    """One vector a frame; empty when any of them is missing."""
    values = one.header.get(of_frames)
    if not isinstance(values, tuple):
        values = (one.header.get(of_image),)
        if int(number(one.header.get("NumberOfFrames"), 1)) > 1:
            return []
    found = []
    for value in values:
        if not isinstance(value, tuple) or len(value) != count or any(part is None for part in value):
            return []
        found.append(np.array([number(part, np.nan) for part in value]))
    return found


def number(value: HeaderValue, default: float) -> float:
    """``value`` where it is a number, else ``default``."""
    return float(value) if isinstance(value, int | float) else default
