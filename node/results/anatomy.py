"""The slice that a Secondary Capture shows: which one, how grey, and which way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Findings, Segment
from node.results.facts import Source
from node.results.header_values import numbers
from node.results.source_header import SourceHeader

CT_UNIT = "[hnsf'U]"
_CT_LIMITS_HU = (-1000.0, 400.0)
_PERCENTILES = (1.0, 99.0)
_NAMES = (("L", "R"), ("P", "A"), ("H", "F"))


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
    is_largest_area
        Whether the slice was chosen for the area of its segments.
    """

    grey: NDArray[np.uint8]
    masks: tuple[tuple[Segment, NDArray[np.bool_]], ...]
    spacing_mm: tuple[float, float]
    edges: tuple[str, str, str, str]
    index: int
    count: int
    instance: int | None
    is_largest_area: bool


def anatomy(findings: Findings, source: Source, header: SourceHeader) -> Anatomy | None:
    """Choose the slice to show; None when the source offers no pixels.

    With segments it is the slice where they cover the largest area, else the middle one.
    """
    if source.volume is not None:
        voxels = source.volume.voxels
        index = _slice_of_largest_area(findings.segments)
        chosen = len(voxels) // 2 if index is None else index
        masks = tuple((one, one.mask[chosen]) for one in findings.segments if one.mask[chosen].any())
        steps = source.volume.affine[:3, :3]
        spacing_mm = (source.volume.spacing_mm[1], source.volume.spacing_mm[2])
        return Anatomy(
            _grey(voxels[chosen], source.volume.unit == CT_UNIT or header.modality == "CT", header),
            masks,
            spacing_mm,
            _edges(steps[:, 2], steps[:, 1]),
            chosen,
            len(voxels),
            chosen if len(source.data_sets) == len(voxels) else None,
            index is not None,
        )
    if source.picture_slice is None or source.picture_slice.ndim not in (2, 3):
        return None
    shown = min(max(source.picture_instance, 0), len(header.instances) - 1)
    instance = header.instances[shown]
    spacing = instance.pixel_spacing_mm
    along_row, along_column = np.array(instance.orientation[:3]), np.array(instance.orientation[3:])
    return Anatomy(
        _grey(source.picture_slice, header.modality == "CT", header),
        (),
        (spacing[0], spacing[1]) if len(spacing) == 2 else (1.0, 1.0),
        _edges(along_row, along_column) if len(instance.orientation) == 6 else ("", "", "", ""),
        shown,
        len(header.instances),
        shown,
        False,
    )


def _slice_of_largest_area(segments: Sequence[Segment]) -> int | None:
    """Return the slice where most voxels are in some segment; None when there are none."""
    filled = [segment.mask for segment in segments if segment.mask.any()]
    if not filled:
        return None
    union = np.zeros(filled[0].shape, dtype=bool)
    for mask in filled:
        union |= mask
    return int(np.argmax(np.count_nonzero(union, axis=(1, 2))))


def _grey(pixels: NDArray[Any], is_ct: bool, header: SourceHeader) -> NDArray[np.uint8]:
    if pixels.ndim == 3:
        return _colour(pixels)
    values = np.nan_to_num(np.asarray(pixels, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = _ct_window(header) if is_ct else tuple(np.percentile(values, _PERCENTILES))
    if not high > low:
        low, high = float(values.min()), float(values.min()) + 1.0
    scaled = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
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
