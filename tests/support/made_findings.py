"""Sources and findings made for the tests of result objects."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, UltrasoundMultiFrameImageStorage

from models.base import ModelCard
from models.types import (
    Check,
    Code,
    DerivedImage,
    Evaluation,
    Findings,
    Image,
    Mark,
    Measurement,
    Segment,
    Volume,
)
from node.config.settings import ResultKind
from node.results.build import ResultObject, RunFacts, Source, build
from node.series import image, source_series, volume
from node.series.source_series import SourceInstance
from tests.support.data import require_data
from tests.support.made_series import ct_header, ct_series, real_series

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
LESION = Code("49755003", "SCT", "Morphologically Altered Structure")
LUNG, NODULE = Code("39607008", "SCT", "Lung"), Code("27925004", "SCT", "Nodule")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
VOLUME, MILLILITRE = Code("118565006", "SCT", "Volume"), Code("ml", "UCUM", "milliliter")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MEAN = Code("373098007", "SCT", "Mean")
LOW = Code("LAA-950", "99ANODE", "Lung voxels below -950 HU")
PERCENT = Code("%", "UCUM", "percent")
STARTED_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def card(**changes: Any) -> ModelCard:
    facts: dict[str, Any] = {
        "name": "lungs",
        "version": "1.2.3",
        "title": "Lung volumes",
        "intended_use": "a test",
        "limits": "",
        "inputs": "",
        "outputs": "",
        "evidence": "",
        "licence": "",
        "family": Code("123104", "DCM", "Morphological Operations"),
    }
    return ModelCard(**(facts | changes))


def run_facts(**changes: Any) -> RunFacts:
    facts: dict[str, Any] = {"analysis": "lungs", "card": card(), "started_at": STARTED_AT}
    return RunFacts(**(facts | changes))


def source_of(instances: Sequence[SourceInstance], digest: str = "ab" * 32) -> Source:
    built = volume.build(instances)
    return Source([one.header for one in built.ordered], built.volume, digest)


def made_source(count: int = 5, step: Sequence[float] = (0, 0, 2.5), **attributes: Any) -> Source:
    return source_of(ct_series(count, step, **attributes))


def image_source(frames: int = 1, header: Dataset | None = None, **attributes: Any) -> Source:
    """The source of a model that takes one image: a radiograph, or a multi-frame image without a place."""
    if header is None:
        header = ct_header(
            1,
            (0, 0, 0),
            SOPClassUID=UltrasoundMultiFrameImageStorage if frames > 1 else ComputedRadiographyImageStorage,
            Modality="US" if frames > 1 else "CR",
            FrameOfReferenceUID=None,
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
        )
        if frames > 1:
            header.NumberOfFrames = frames
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
    size = frames * header.Rows * header.Columns
    pixels = np.arange(size, dtype=np.int16).reshape(frames, header.Rows, header.Columns)
    return Source([header], None, "cd" * 32, image=Image(pixels, (0.8, 0.5), "1"), name="image")


def real_source(folder: Path, count: int) -> Source:
    """The first ``count`` neighbouring slices of a real series."""
    instances = real_series(folder)
    first = np.array(instances[0].header.ImageOrientationPatient, float)
    normal = np.cross(first[:3], first[3:])
    instances.sort(key=lambda one: float(np.dot(normal, np.array(one.header.ImagePositionPatient, float))))
    return source_of(instances[:count])


def real_image(name: str) -> Source:
    """A real file as the source of a model that takes one image."""
    built = image.build([source_series.from_file(require_data(name))])
    return Source([built.instance.header], None, "cd" * 32, image=built.image, name="image")


def numbers() -> tuple[Measurement, ...]:
    return (
        Measurement(VOLUME, 1234.5, MILLILITRE),
        Measurement(ATTENUATION, -850.1, HOUNSFIELD, derivation=MEAN),
        Measurement(LOW, 12.25, PERCENT),
    )


def block(grid: Volume, first: Sequence[float], last: Sequence[float]) -> np.ndarray:
    """A box in fractions of the grid, (slice, row, column)."""
    mask = np.zeros(grid.voxels.shape, dtype=bool)
    low = [int(f * n) for f, n in zip(first, mask.shape, strict=True)]
    high = [max(int(f * n), a + 1) for f, n, a in zip(last, mask.shape, low, strict=True)]
    mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return mask


def two_lungs(grid: Volume) -> Findings:
    right = block(grid, (0.2, 0.2, 0.1), (0.8, 0.7, 0.4))
    left = block(grid, (0.2, 0.2, 0.6), (1.0, 0.8, 0.9))
    return Findings(
        segments=(
            Segment("left-lung", "Left lung", left, ANATOMY, LUNG, LEFT, numbers(), (80, 180, 255)),
            Segment("right-lung", "Right lung", right, ANATOMY, LUNG, RIGHT, numbers()),
        ),
        checks=(
            Check("slice spacing", True),
            Check("left lung complete", False, "the left lung touches the last slice: no numbers"),
        ),
        summary="Two lungs were found.",
    )


def everything(grid: Volume) -> Findings:
    """All that a model can say at once, with the values that are hard to encode."""
    found = two_lungs(grid)
    nothing = np.zeros(grid.voxels.shape, dtype=bool)
    overlapping = block(grid, (0.3, 0.3, 0.3), (0.7, 0.6, 0.8))
    return Findings(
        segments=(
            *found.segments,
            Segment("nodule-1", "Nodule é", overlapping, LESION, NODULE, LEFT, colour=(255, 0, 0)),
            Segment("missing", "Missing", nothing, ANATOMY, LUNG, RIGHT, numbers()[:1]),
        ),
        measurements=(
            Measurement(VOLUME, float("nan"), MILLILITRE),
            Measurement(VOLUME, float("inf"), MILLILITRE),
            Measurement(VOLUME, 1.0 / 3.0 * 1e-7, MILLILITRE),
            Measurement(
                Code("a-code-of-many-characters", "99ANODE", "m" * 80), 3.0, Code("1", "UCUM", "no units")
            ),
        ),
        evaluations=(
            Evaluation(
                Code("130550", "DCM", "Imaging Series Quality"), Code("quality-pass", "99ANODE", "pass")
            ),
            Evaluation(Code("mismatched-attributes", "99OTHER", "Mismatched"), "words of the model"),
        ),
        checks=found.checks,
        summary="Several lines\nof words, some of them long. " * 3,
    )


def region(mask: NDArray[np.bool_], name: str = "part", **changes: Any) -> Segment:
    return Segment(name, name.title(), mask, ANATOMY, LUNG, **changes)


def smooth(voxels: NDArray[Any], **changes: Any) -> DerivedImage:
    facts: dict[str, Any] = {"name": "smooth", "label": "Smoothed", "voxels": voxels, "unit": HOUNSFIELD}
    return DerivedImage(**(facts | changes))


def found(*things: Segment | Mark | DerivedImage) -> Findings:
    return Findings(
        segments=tuple(one for one in things if isinstance(one, Segment)),
        marks=tuple(one for one in things if isinstance(one, Mark)),
        images=tuple(one for one in things if isinstance(one, DerivedImage)),
    )


def every_mark(on: str = "") -> tuple[Mark, ...]:
    """A mark of each shape, on a grid of at least four slices of 4 rows and 6 columns."""
    places: dict[str, tuple[str, list[tuple[float, float, float]]]] = {
        "point": ("point", [(1, 2, 3)]),
        "box": ("box", [(1, 1, 1), (3, 2, 4)]),
        "flat-box": ("box", [(2, 1, 1), (2, 2, 4)]),
        "polygon": ("polygon", [(0, 1, 1), (0, 1, 3), (0, 2.5, 2.25)]),
        "line": ("polyline", [(0, 1, 1), (0, 1, 3), (0, 2.5, 2.25)]),
    }
    marks = []
    for number, (name, (shape, points)) in enumerate(places.items()):
        marks.append(
            Mark(
                name,
                f"The {name}",
                shape,  # type: ignore[arg-type]
                np.array(points, float),
                LESION,
                NODULE,
                site=LUNG if number % 2 else None,
                laterality=LEFT,
                probability=0.93 - 0.2 * number,
                measurements=numbers()[:number],
                evaluations=(
                    Evaluation(Code("solid", "99ANODE", "Solid"), LOW, 0.8),
                    Evaluation(LOW, "words"),
                ),
                on=on,
            )
        )
    return tuple(marks)


def with_prior(source: Source) -> Source:
    """The same source as the input ``ct``, with one of an earlier study as the input ``prior``."""
    instances = ct_series(
        4,
        StudyInstanceUID="1.2.77",
        SeriesInstanceUID="1.2.77.1",
        StudyDate="20240304",
        FrameOfReferenceUID="1.2.77.0",
    )
    for number, instance in enumerate(instances, 1):
        instance.header.SOPInstanceUID = f"1.2.77.1.{number}"
    prior = replace(source_of(instances, source.input_digest), name="prior", is_prior=True)
    return replace(source, name="ct", others={"prior": prior})


def quality() -> Findings:
    """What a model says that needs no volume."""
    return Findings(
        measurements=(
            Measurement(
                Code("instance-count", "99ANODE", "Number of instances"), 12.0, Code("1", "UCUM", "no units")
            ),
        ),
        evaluations=(
            Evaluation(
                Code("130550", "DCM", "Imaging Series Quality"),
                Code("quality-fail", "99ANODE", "Series quality: fail"),
            ),
            Evaluation(
                Code("missing-slices", "99ANODE", "Missing slices"), "one slice is missing after slice 4"
            ),
        ),
        checks=(
            Check("missing slices", False, "one slice is missing after slice 4"),
            Check("clipped pixels", True),
        ),
        summary="Series quality: fail. one slice is missing after slice 4.",
    )


def built(
    findings: Findings,
    source: Source,
    run: RunFacts | None = None,
    kinds: Sequence[ResultKind] = ("sr", "seg", "sc"),
) -> dict[str, ResultObject]:
    return {one.kind: one for one in build(findings, source, run or run_facts(), kinds)}


def all_built(
    findings: Findings,
    source: Source,
    run: RunFacts | None = None,
    kinds: Sequence[ResultKind] = ("sr", "seg", "sc"),
) -> list[ResultObject]:
    return build(findings, source, run or run_facts(), kinds)


def read(result: ResultObject) -> Dataset:
    return dcmread(io.BytesIO(result.part10))


def of_kind(kind: ResultKind, source: Source, *things: Segment | Mark | DerivedImage) -> list[Dataset]:
    """The objects of one kind that are made of what was found."""
    return [read(one) for one in all_built(found(*things), source, kinds=(kind,))]


def with_fault(result: ResultObject, fault: Callable[[Dataset], object]) -> bytes:
    """A result object as a file, with something wrong planted in it."""
    data_set = read(result)
    fault(data_set)
    out = io.BytesIO()
    dcmwrite(out, data_set, enforce_file_format=False)
    return out.getvalue()
