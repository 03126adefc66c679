"""What findings have to keep to before anything is made of them: the words of ``models.types``, checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from models.types import (
    DerivedImage,
    Findings,
    Image,
    Inputs,
    Mark,
    Measurement,
    Picture,
    Segment,
    Transform,
    Volume,
)
from node.processes.declared_types import refuse_other_types

_CORNERS = {"point": (1, 1), "box": (2, 2), "polygon": (3, None), "polyline": (2, None)}
#: What results are made of in a minute or two. A box has an outline in each slice that it reaches through.
MOST_MARKS, MOST_POINTS, MOST_POINTS_OF_ALL, MOST_OUTLINES = 5_000, 65_535, 1_000_000, 10_000


def refuse_unsound(findings: object, inputs: Inputs) -> None:
    """Refuse what is no Findings on ``inputs``.

    Raises
    ------
    TypeError, ValueError
        saying what is wrong with which part
    """
    refuse_misshapen(findings, inputs)
    assert isinstance(findings, Findings)
    kinds = (findings.segments, findings.marks, findings.images, findings.transforms, findings.pictures)
    names = Counter(one.name for kind in kinds for one in kind)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"two things found have one name: {', '.join(twice)}")
    for segment in findings.segments:
        inside = segment.probability
        # Neither holds for what is no number.
        if inside is not None and inside.size and not (inside.min() >= 0 and inside.max() <= 1):
            raise ValueError(f"the probability of {segment.name} is not within 0 and 1")
    outlines = 0
    for mark in findings.marks:
        _points(mark, inputs)
        outlines += int(np.ptp(mark.points[:, 0])) + 1 if mark.shape == "box" else 1
    if outlines > MOST_OUTLINES:
        raise ValueError(
            f"boxes reach through {outlines:,} slices, counted for each box; {MOST_OUTLINES:,} is the most"
        )
    for image in findings.images:
        if not np.isfinite(image.voxels).all():
            raise ValueError(f"the image {image.name} has voxels that are no numbers")
    for transform in findings.transforms:
        _numbers_of(transform)
    for one in _measurements(findings):
        if not math.isfinite(one.value):
            raise ValueError(f"{one.concept.meaning} is {one.value}")
    for stated in _probabilities(findings):
        if not 0.0 <= stated <= 1.0:
            raise ValueError(f"a probability is {stated}")


def refuse_misshapen(findings: object, inputs: Inputs) -> None:
    """Refuse what is no Findings on ``inputs`` whatever its arrays hold: only their shapes are looked at.

    Raises
    ------
    TypeError, ValueError
        saying what is wrong with which part
    """
    if not isinstance(findings, Findings):
        raise TypeError(f"predict returned {type(findings).__name__} instead of Findings")
    refuse_other_types(findings)
    for segment in findings.segments:
        _segment(segment, inputs)
    if len(findings.marks) > MOST_MARKS:
        raise ValueError(f"{len(findings.marks):,} marks were found; {MOST_MARKS:,} is the most")
    for mark in findings.marks:
        _mark(mark, inputs)
    points = sum(len(mark.points) for mark in findings.marks)
    if points > MOST_POINTS_OF_ALL:
        raise ValueError(f"the marks have {points:,} points together; {MOST_POINTS_OF_ALL:,} is the most")
    for image in findings.images:
        _image(image, inputs)
    for transform in findings.transforms:
        _transform(transform, inputs)
    for picture in findings.pictures:
        _picture(picture)


def grid_shape(inputs: Inputs, on: str, what: str) -> tuple[int, ...]:
    """Return (slice, row, column) of the input that something was found ``on``.

    Raises ValueError when there is no such input, or it has no grid.
    """
    given = inputs.given.get(on) if on else inputs.primary
    if given is None:
        raise ValueError(f"{what} is on an input '{on}', which was not given")
    if isinstance(given, Volume):
        return given.voxels.shape
    if isinstance(given, Image):
        return given.pixels.shape[:3]
    raise ValueError(f"{what} needs a volume or an image, and the model was given a series")


def _measurements(findings: Findings) -> Iterable[Measurement]:
    yield from findings.measurements
    for segment in findings.segments:
        yield from segment.measurements
    for mark in findings.marks:
        yield from mark.measurements


def _probabilities(findings: Findings) -> Iterable[float]:
    evaluations = list(findings.evaluations)
    for segment in findings.segments:
        evaluations += segment.evaluations
    for mark in findings.marks:
        evaluations += mark.evaluations
        if mark.probability is not None:
            yield mark.probability
    yield from (one.probability for one in evaluations if one.probability is not None)


def _segment(segment: Segment, inputs: Inputs) -> None:
    name = segment.name
    if segment.mask.dtype != np.bool_:
        raise TypeError(f"the mask of {name} is no array of bool")
    shape = grid_shape(inputs, segment.on, f"the segment {name}")
    if segment.mask.shape != shape:
        raise ValueError(f"the mask of {name} has the shape {segment.mask.shape}, its input {shape}")
    probability = segment.probability
    if probability is None:
        return
    if probability.dtype != np.float32 or probability.shape != shape:
        raise ValueError(f"the probability of {name} is no float32 of the shape {shape}")


def _mark(mark: Mark, inputs: Inputs) -> None:
    name = mark.name
    grid_shape(inputs, mark.on, f"the mark {name}")
    if mark.points.ndim != 2 or mark.points.shape[1] != 3:
        raise ValueError(f"the points of {name} are no (n, 3)")
    least, most = _CORNERS[mark.shape]
    if len(mark.points) < least or (most is not None and len(mark.points) > most):
        raise ValueError(f"{name} is a {mark.shape} of {len(mark.points)} points")
    if len(mark.points) > MOST_POINTS:
        raise ValueError(
            f"{name} is a {mark.shape} of {len(mark.points):,} points; {MOST_POINTS:,} is the most"
        )


def _points(mark: Mark, inputs: Inputs) -> None:
    name = mark.name
    shape = grid_shape(inputs, mark.on, f"the mark {name}")
    if not np.isfinite(mark.points).all():
        raise ValueError(f"the points of {name} are not finite")
    if (mark.points < -0.5).any() or (mark.points > np.array(shape) - 0.5).any():
        raise ValueError(f"{name} lies outside its input")
    if mark.shape in ("polygon", "polyline") and np.ptp(mark.points[:, 0]) > 1e-6:
        raise ValueError(f"{name} is a {mark.shape} that lies not in one slice")


def _image(image: DerivedImage, inputs: Inputs) -> None:
    shape = grid_shape(inputs, image.on, f"the image {image.name}")
    is_colour = image.voxels.ndim == 4 and image.voxels.shape[3] == 3 and image.voxels.dtype == np.uint8
    if image.voxels.ndim != 3 and not is_colour:
        raise ValueError(f"the image {image.name} is neither (slice, row, column) nor RGB of uint8")
    if image.kind == "map" and (is_colour or image.quantity is None):
        raise ValueError(f"the map {image.name} needs a quantity, and one number for each voxel")
    if image.affine is None and image.voxels.shape[:3] != shape:
        raise ValueError(f"the image {image.name} is {image.voxels.shape[:3]}, its input {shape}")
    if image.affine is not None and image.affine.shape != (4, 4):
        raise ValueError(f"the affine of {image.name} is no (4, 4)")


def _transform(transform: Transform, inputs: Inputs) -> None:
    for role in (transform.moving, transform.fixed):
        grid_shape(inputs, role, f"the transform {transform.name}")
    if transform.matrix.shape != (4, 4):
        raise ValueError(f"the matrix of {transform.name} is no (4, 4)")
    field, affine = transform.displacements, transform.displacement_affine
    if field is None:
        return
    if field.ndim != 4 or field.shape[3] != 3 or affine is None or affine.shape != (4, 4):
        raise ValueError(
            f"the displacements of {transform.name} are no (slice, row, column, 3) with an affine"
        )


def _numbers_of(transform: Transform) -> None:
    if not np.isfinite(transform.matrix).all():
        raise ValueError(f"the matrix of {transform.name} is not finite")
    if transform.displacements is not None and not np.isfinite(transform.displacements).all():
        raise ValueError(f"the displacements of {transform.name} are not finite")


def _picture(picture: Picture) -> None:
    pixels = picture.pixels
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(f"the picture {picture.name} is no RGB of uint8")
