"""The slices that a Secondary Capture shows: which ones, how grey, and which way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Findings, Mark, Segment
from node.results.frames import groups_of, numbers_of
from node.results.given import AllGiven, Given
from node.results.header_values import numbers
from node.results.patient_orientation import directions
from node.results.regions import outlines_of, slice_of
from node.results.source_header import SourceHeader

CT_UNIT = "[hnsf'U]"
_CT_LIMITS_HU = (-1000.0, 400.0)
_PERCENTILES = (1.0, 99.0)
_NAMES = (("L", "R"), ("P", "A"), ("H", "F"))
_OPPOSITE = {one: other for pair in _NAMES for one, other in (pair, pair[::-1])}
#: How many further slices are shown small, below the one.
MOST_OTHERS = 5


@dataclass(frozen=True)
class Drawn:
    """A mark on a slice: ``points`` is (n, 2) float64, (row, column), whole numbers in the middle of pixels.

    ``number`` is what it is called in the picture and in the panel, from 1.
    """

    mark: Mark
    number: int
    points: NDArray[np.float64]


@dataclass(frozen=True)
class Anatomy:
    """One slice to draw.

    Attributes
    ----------
    grey
        (row, column) or (row, column, 3) uint8, windowed.
    masks
        With each non-empty segment its (row, column) mask on this slice.
    spacing_mm
        (row, column).
    edges
        What lies beyond the left, right, top and bottom edge (L, R, A, P, H, F, or two of them);
        empty strings when unknown.
    index, count
        The slice is number ``index`` (from 0) of ``count``.
    instance
        Index into the source's data sets, None when a slice is no instance of its own.
    why
        Why this slice was chosen, in words; may be empty.
    marks
        Those on this slice.
    given
        The input that it is of, None when that is of no interest.
    others
        Further slices with findings, from the first to the last.
    """

    grey: NDArray[np.uint8]
    masks: tuple[tuple[Segment, NDArray[np.bool_]], ...]
    spacing_mm: tuple[float, float]
    edges: tuple[str, str, str, str]
    index: int
    count: int
    instance: int | None
    why: str = ""
    marks: tuple[Drawn, ...] = ()
    given: Given | None = None
    others: tuple[Anatomy, ...] = ()


def anatomy(findings: Findings, given: AllGiven) -> Anatomy | None:
    """Choose the slices to show; None when the source offers no pixels.

    The first is the one with most marks, and of those with as many the one where segments cover the
    largest area, else the middle one. It is of the first input, unless all that was found is on another.
    """
    one = _input_of(findings, given)
    pixels = _slices(one)
    if pixels is None:
        return _given_slice(one)
    here = _Here.on(findings, given, one, pixels)
    index, why = here.best()
    shown = _slice(here, one, index)
    others = tuple(_slice(here, one, other) for other in here.others(index))
    return replace(shown, why=why, others=others)


# --- what is where -----------------------------------------------------------


@dataclass(frozen=True)
class _Here:
    """What was found on one input: its pixels (slice, row, column[, 3]), masks, and marks by slice.

    ``areas`` says how many voxels of each slice are in some segment.
    """

    pixels: NDArray[Any]
    segments: tuple[Segment, ...]
    marks: dict[int, list[Drawn]]
    areas: list[int]

    @classmethod
    def on(cls, findings: Findings, given: AllGiven, one: Given, pixels: NDArray[Any]) -> _Here:
        segments = tuple(
            segment
            for segment in findings.segments
            if given.on(segment.on) is one and segment.mask.shape == pixels.shape[:3] and segment.mask.any()
        )
        marks: dict[int, list[Drawn]] = {}
        shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
        for number, mark in enumerate(findings.marks, 1):
            if given.on(mark.on) is not one:
                continue
            for outline in outlines_of(mark, shape):
                marks.setdefault(slice_of(outline, shape), []).append(Drawn(mark, number, outline[:, 1:]))
        union = np.zeros(shape, dtype=bool)
        for segment in segments:
            union |= segment.mask
        return cls(pixels, segments, marks, np.count_nonzero(union, axis=(1, 2)).tolist())

    def best(self) -> tuple[int, str]:
        if not (self.segments or self.marks):
            return len(self.pixels) // 2, ""
        areas = self.areas
        weights = {index: sum(map(_weight, marks)) for index, marks in self.marks.items()}
        best = max(range(len(areas)), key=lambda one: (weights.get(one, 0.0), areas[one], -one))
        return best, "most findings" if self.marks else "largest area"

    def others(self, best: int) -> list[int]:
        """Further slices with something in them: those of marks that the best does not show, then evenly."""
        slices: dict[int, list[int]] = {}
        for index, marks in sorted(self.marks.items()):
            for drawn in marks:
                slices.setdefault(drawn.number, []).append(index)
        unseen = [found[len(found) // 2] for found in slices.values() if best not in found]
        chosen = list(dict.fromkeys(unseen))[:MOST_OTHERS]
        areas = self.areas
        rest = [one for one in range(len(areas)) if areas[one] or one in self.marks]
        rest = [one for one in rest if one != best and one not in chosen]
        room = min(MOST_OTHERS - len(chosen), len(rest))
        places = np.linspace(0, len(rest) - 1, room).round().astype(int).tolist() if room else []
        return sorted([*chosen, *(rest[place] for place in places)])


def _weight(drawn: Drawn) -> float:
    return 0.5 if drawn.mark.probability is None else drawn.mark.probability + 0.01


def _input_of(findings: Findings, given: AllGiven) -> Given:
    inputs = [given.on(mark.on) for mark in findings.marks]
    inputs += [given.on(segment.on) for segment in findings.segments]
    return given.first if given.first in inputs or not inputs else inputs[0]


def _slices(one: Given) -> NDArray[Any] | None:
    if one.source.volume is not None:
        return one.source.volume.voxels
    return one.source.image.pixels if one.source.image is not None else None


def _slice(here: _Here, one: Given, index: int) -> Anatomy:
    source, header = one.source, one.header
    count = len(here.pixels)
    volume = source.volume
    if volume is not None:
        steps = volume.affine[:3, :3]
        spacing_mm = (volume.spacing_mm[1], volume.spacing_mm[2])
        edges, unit = _edges(steps[:, 2], steps[:, 1]), volume.unit
        instance = index if len(source.data_sets) == count else None
    else:
        assert source.image is not None
        spacing_mm = source.image.spacing_mm or (1.0, 1.0)
        edges, unit, instance = _edges_of(header, 0, index), source.image.unit, 0
    return Anatomy(
        _grey(here.pixels[index], unit == CT_UNIT or header.modality == "CT", header),
        tuple((segment, segment.mask[index]) for segment in here.segments if segment.mask[index].any()),
        spacing_mm,
        edges,
        index,
        count,
        instance,
        marks=tuple(here.marks.get(index, ())),
        given=one,
    )


def _given_slice(one: Given) -> Anatomy | None:
    """The slice that the source itself offers, of a series that was given as its instances."""
    source, header = one.source, one.header
    if source.picture_slice is None or source.picture_slice.ndim not in (2, 3):
        return None
    shown = min(max(source.picture_instance, 0), len(header.instances) - 1)
    spacing = header.instances[shown].pixel_spacing_mm
    return Anatomy(
        _grey(source.picture_slice, header.modality == "CT", header),
        (),
        (spacing[0], spacing[1]) if len(spacing) == 2 else (1.0, 1.0),
        _edges_of(header, shown),
        shown,
        len(header.instances),
        shown,
        given=one,
    )


# --- grey --------------------------------------------------------------------


def _grey(pixels: NDArray[Any], is_ct: bool, header: SourceHeader) -> NDArray[np.uint8]:
    if pixels.ndim == 3:
        return _colour(pixels)
    values = np.nan_to_num(np.asarray(pixels, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = _ct_window(header) if is_ct else tuple(np.percentile(values, _PERCENTILES))
    if not high > low:
        low, high = float(values.min()), float(values.min()) + 1.0
    scaled = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
    if str(header.first.get("PhotometricInterpretation", "")) == "MONOCHROME1" and not is_ct:
        scaled = 255.0 - scaled
    return scaled.astype(np.uint8)


def _colour(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    rgb = pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    if rgb.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    high = float(rgb.max()) or 1.0
    return np.clip(rgb * (255.0 / high), 0, 255).astype(np.uint8)


def _ct_window(header: SourceHeader) -> tuple[float, float]:
    """Return the limits of the first window that the source has, else ones that show lung and soft tissue."""
    centre, width = numbers(header.first, "WindowCenter"), numbers(header.first, "WindowWidth")
    if centre and width and width[0] >= 2:
        return centre[0] - width[0] / 2, centre[0] + width[0] / 2
    return _CT_LIMITS_HU


# --- which way round ---------------------------------------------------------


def _edges_of(header: SourceHeader, instance: int, frame: int | None = None) -> tuple[str, str, str, str]:
    """What is beyond the edges of an instance; with ``frame``, from 0, of that frame of the first one."""
    orientation: Sequence[float] = header.instances[instance].orientation
    # Frames may lie each in a way of its own.
    if frame is not None and (groups := groups_of(header.first, frame)):
        orientation = numbers_of(groups, "ImageOrientationPatient")
    if len(orientation) == 6:
        return _edges(np.array(orientation[:3]), np.array(orientation[3:]))
    # A projection says it in letters: to the right, and down (PS3.3 section C.7.6.1.1.1).
    stated = directions(header.first)
    if stated is None:
        return "", "", "", ""
    right, down = stated
    left, up = ("".join(_OPPOSITE[letter] for letter in one) for one in stated)
    return left, right, up, down


def _edges(along_row: NDArray[np.float64], along_column: NDArray[np.float64]) -> tuple[str, str, str, str]:
    return (
        direction_name(-along_row),
        direction_name(along_row),
        direction_name(-along_column),
        direction_name(along_column),
    )


def direction_name(vector: NDArray[np.float64]) -> str:
    """Return where an LPS vector points to, in letters of PS3.3 section C.7.6.1.1.1: ``L``, ``PF``."""
    length = float(np.linalg.norm(vector))
    if not length:
        return ""
    cosines = vector / length
    order = np.argsort(-np.abs(cosines), kind="stable")
    letters = [_NAMES[axis][0 if cosines[axis] > 0 else 1] for axis in order if abs(cosines[axis]) > 0.35]
    return "".join(letters[:2])
