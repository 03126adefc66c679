"""Where the planes of a series lie in the patient, and whether together they are one regular grid.

Geometry is checked before anything is measured: what is no volume is refused by name.
Coordinates are mm in LPS (PS3.3 sections C.7.6.2 and C.7.6.16.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.errors import NotAVolume
from node.series.header_values import items, numbers, text, values, whole
from node.series.values import Rescaling, rescaling, transformation

Vector = NDArray[np.float64]

#: Direction cosines are the same when none differs by more: half a millimetre across a large image.
SAME_DIRECTION = 1e-3
#: Spacing within a series is the same when it differs by no more than this share.
SAME_SPACING = 1e-3
#: Gaps between slices may differ by 3 % (PET joins its beds so), or by 0.01 mm ...
SAME_GAP, SAME_GAP_MM = 0.03, 0.01
#: ... or by what the rounding of the coordinates explains, but by no more than this.
MOST_ROUNDING_MM = 0.1
#: Slices that lean more than this (cosine) are no tilted gantry.
MOST_LEANING = 0.7


@dataclass(frozen=True)
class Plane:
    """One frame with its place.

    ``instance`` is the index of its instance, ``frame`` that of the frame within it, both from 0.
    ``orientation`` is the row's direction and then the column's; ``spacing_mm`` is (between rows,
    between columns).
    """

    instance: int
    frame: int
    label: str
    position: Vector
    orientation: Vector
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    rescaling: Rescaling
    rounding_mm: float


@dataclass(frozen=True)
class Grid:
    """Planes in order along their normal, and the grid that they are.

    ``affine`` is (4, 4): (slice, row, column, 1) to (x, y, z, 1); ``spacing_mm`` (slice, row,
    column), of slices along the normal.
    """

    planes: tuple[Plane, ...]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]


def planes(headers: Sequence[Dataset]) -> list[Plane]:
    """Every frame of every instance with its place, in the order given.

    Raises
    ------
    NotAVolume
        when one of them is a localizer, in colour, or says not where it lies
    """
    found: list[Plane] = []
    for index, header in enumerate(headers):
        label = _label(header, index, len(headers))
        _refuse_by_kind(header, label)
        if "PerFrameFunctionalGroupsSequence" in header:
            found += _frames(header, index, "" if len(headers) == 1 else f"{label}, ")
        elif whole(header, "NumberOfFrames", 1) > 1:
            raise NotAVolume(f"the frames of {label} have no position of their own")
        else:
            found.append(_single(header, index, label))
    return found


def grid(found: Sequence[Plane]) -> Grid:
    """Put planes in order and check that they are one regular grid.

    A tilted gantry makes a sheared one, which is accepted.

    Raises
    ------
    NotAVolume
        naming the fault and the slices: a single slice, mixed size, spacing or orientation, several
        images at one place, missing slices, uneven spacing, slices that shift sideways
    """
    if len(found) < 2:
        raise NotAVolume("a single slice is no volume")
    _refuse_mixed("size", found, lambda one, other: one.size == other.size)
    _refuse_mixed(
        "pixel spacing", found, lambda one, other: np.allclose(one.spacing_mm, other.spacing_mm, SAME_SPACING)
    )
    _refuse_mixed(
        "orientation",
        found,
        lambda one, other: bool(np.abs(one.orientation - other.orientation).max() <= SAME_DIRECTION),
    )
    # Where it is said of some alone, the values of the others are not known to be on the same scale.
    _refuse_mixed("rescaling", found, lambda one, other: one.rescaling.said == other.rescaling.said)
    row, column = found[0].orientation[:3], found[0].orientation[3:]
    normal = np.cross(row, column)
    ordered = sorted(found, key=lambda plane: float(plane.position @ normal))
    positions = np.stack([plane.position for plane in ordered])
    along = positions @ normal
    rounding_mm = min(min(plane.rounding_mm for plane in ordered), MOST_ROUNDING_MM)
    _refuse_uneven(ordered, along, rounding_mm)
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    _refuse_crooked(ordered, positions, step, normal, rounding_mm)
    height, width = found[0].spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column * height
    affine[:3, 2] = row * width
    affine[:3, 3] = positions[0]
    return Grid(tuple(ordered), affine, (float(step @ normal), height, width))


# --- from a header to planes -------------------------------------------------


def _label(header: Dataset, index: int, count: int) -> str:
    # Only a number: a refusal is shown and logged, and an element may hold anything.
    found = numbers(header, "InstanceNumber", 1)
    return f"slice {found[0]:g}" if found is not None else f"instance {index + 1} of {count}"


def _refuse_by_kind(header: Dataset, label: str) -> None:
    image_type = [str(one).upper() for one in values(header, "ImageType")]
    if "LOCALIZER" in image_type:
        raise NotAVolume(f"{label} is a localizer")
    if not whole(header, "Rows", 0) or not whole(header, "Columns", 0):
        raise NotAVolume(f"{label} has no pixels")
    if whole(header, "SamplesPerPixel", 1) != 1:
        raise NotAVolume(f"{label} is in colour")
    if text(header, "PhotometricInterpretation") == "PALETTE COLOR":
        raise NotAVolume(f"{label} is in colour (palette)")


def _single(header: Dataset, index: int, label: str) -> Plane:
    return _plane(header, index, 0, label, header, header, header, header)


def _frames(header: Dataset, index: int, prefix: str) -> Iterator[Plane]:
    """Planes of an enhanced object, from its functional groups (PS3.3 section C.7.6.16)."""
    shared = (items(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = items(header, "PerFrameFunctionalGroupsSequence")
    declared = whole(header, "NumberOfFrames", 1)
    if len(per_frame) != declared:
        raise NotAVolume(f"{prefix}{len(per_frame)} functional groups describe {declared} frames")
    for number, group in enumerate(per_frame):

        def item(name: str, group: Dataset = group) -> Dataset:
            found = items(group, name) or items(shared, name)
            return found[0] if found else Dataset()

        yield _plane(
            header,
            index,
            number,
            f"{prefix}frame {number + 1}",
            item("PlanePositionSequence"),
            item("PlaneOrientationSequence"),
            item("PixelMeasuresSequence"),
            transformation(header, group),
        )


def _plane(
    header: Dataset,
    index: int,
    frame: int,
    label: str,
    position: Dataset,
    orientation: Dataset,
    measures: Dataset,
    holder: Dataset,
) -> Plane:
    where = _vector(position, "ImagePositionPatient", 3)
    if where is None:
        raise NotAVolume(f"{label} has no Image Position (Patient)")
    direction = _vector(orientation, "ImageOrientationPatient", 6)
    if direction is None:
        raise NotAVolume(f"{label} has no Image Orientation (Patient)")
    lengths = np.linalg.norm(direction.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(float(direction[:3] @ direction[3:])) > 0.01:
        raise NotAVolume(
            f"the Image Orientation (Patient) of {label} is not two unit vectors at right angles"
        )
    spacing = _vector(measures, "PixelSpacing", 2)
    if spacing is None or spacing.min() <= 0:
        raise NotAVolume(f"{label} has no Pixel Spacing")
    try:
        rescale = rescaling(holder, text(header, "Modality"))
    except ValueError as error:
        raise NotAVolume(f"{label} {error}") from None
    return Plane(
        instance=index,
        frame=frame,
        label=label,
        position=where,
        orientation=direction,
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        size=(whole(header, "Rows", 0), whole(header, "Columns", 0)),
        rescaling=rescale,
        rounding_mm=_rounding_mm(position),
    )


def _vector(data_set: Dataset, keyword: str, count: int) -> Vector | None:
    found = numbers(data_set, keyword, count)
    return None if found is None else np.array(found)


def _rounding_mm(position: Dataset) -> float:
    """How coarsely the coordinates were written: 0.1 for '-12.5'; 0 where they are binary."""
    finest = 1.0
    for one in values(position, "ImagePositionPatient"):
        written = getattr(one, "original_string", None)
        if not isinstance(written, str) or "e" in written.lower():
            return 0.0
        finest = min(finest, 10.0 ** -len(written.strip().partition(".")[2]))
    return finest


# --- from planes to a grid ---------------------------------------------------


def _refuse_mixed(what: str, found: Sequence[Plane], is_same: Callable[[Plane, Plane], bool]) -> None:
    kinds: list[list[Plane]] = []
    for plane in found:
        kind = next((one for one in kinds if is_same(one[0], plane)), None)
        if kind is None:
            kinds.append([plane])
        else:
            kind.append(plane)
    if len(kinds) > 1:
        kinds.sort(key=len, reverse=True)
        odd = [plane.label for kind in kinds[1:] for plane in kind]
        raise NotAVolume(
            f"mixed {what}: {len(odd)} of {len(found)} slices differ from the others ({_listed(odd)})"
        )


def _refuse_uneven(ordered: Sequence[Plane], along: Vector, rounding_mm: float) -> None:
    gaps = np.diff(along)
    # Where several images share each place, the median gap is 0; the gaps that count are the others.
    same_place = gaps <= max(SAME_GAP_MM, rounding_mm / 2)
    real = gaps[~same_place]
    if same_place.any():
        pairs = [_pair(ordered, index) for index in np.flatnonzero(same_place).tolist()]
        places = int(real.size) + 1
        raise NotAVolume(
            f"several images at one place: {len(ordered)} slices lie at {places} places ({_listed(pairs)})"
        )
    usual = float(np.median(real))
    off = np.abs(gaps - usual) > max(SAME_GAP * usual, SAME_GAP_MM, rounding_mm)
    if not off.any():
        return
    missing = {
        index: round(float(gaps[index]) / usual) - 1
        for index in np.flatnonzero(off).tolist()
        if _is_multiple(float(gaps[index]), usual, rounding_mm)
    }
    if len(missing) == int(off.sum()):
        where = [f"{count} between {_pair(ordered, index)}" for index, count in missing.items()]
        total = sum(missing.values())
        raise NotAVolume(
            f"missing slices: {total} of {len(ordered) + total}, at a spacing of {usual:.3g} mm"
            f" ({_listed(where)})"
        )
    where = [
        f"{gaps[index]:.3g} mm between {_pair(ordered, index)}" for index in np.flatnonzero(off).tolist()
    ]
    raise NotAVolume(f"uneven spacing: {usual:.3g} mm, but {_listed(where)}")


def _is_multiple(gap: float, usual: float, rounding_mm: float) -> bool:
    times = round(gap / usual)
    return times >= 2 and abs(gap - times * usual) <= max(0.05 * usual, rounding_mm)


def _refuse_crooked(
    ordered: Sequence[Plane], positions: Vector, step: Vector, normal: Vector, rounding_mm: float
) -> None:
    if float(step @ normal) < MOST_LEANING * float(np.linalg.norm(step)):
        raise NotAVolume("the slices are stacked far from their normal")
    expected = positions[0] + np.arange(len(ordered))[:, None] * step
    off = positions - expected
    along = np.abs(off @ normal)
    across = np.linalg.norm(off - (off @ normal)[:, None] * normal, axis=1)
    worst = int(np.argmax(along))
    if along[worst] > max(0.1 * float(step @ normal), 2 * rounding_mm):
        raise NotAVolume(
            f"uneven spacing: {ordered[worst].label} lies {along[worst]:.2g} mm from its place in the stack"
        )
    worst = int(np.argmax(across))
    if across[worst] > max(0.1 * min(ordered[0].spacing_mm), 2 * rounding_mm, SAME_GAP_MM):
        raise NotAVolume(
            f"slices shift sideways: {ordered[worst].label} by {across[worst]:.2g} mm against the others"
        )


def _pair(ordered: Sequence[Plane], index: int) -> str:
    return f"{ordered[index].label} and {ordered[index + 1].label}"


def _listed(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
