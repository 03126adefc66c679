"""Presentation states draw what was found on the source's own images, where and as it was found."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from skimage.draw import polygon2mask

from models.types import Mark
from tests.support.made_findings import (
    LESION,
    NODULE,
    image_source,
    made_source,
    of_kind,
    region,
    source_of,
)
from tests.support.made_series import LYING, numbered

states = partial(of_kind, "pr")


def drawn_on(made: Dataset) -> dict[tuple[str, int], list[Dataset]]:
    """Graphics by the image and frame that they are on."""
    found: dict[tuple[str, int], list[Dataset]] = {}
    for annotation in made.GraphicAnnotationSequence:
        [image] = annotation.ReferencedImageSequence
        key = (str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber", 1)))
        found.setdefault(key, []).extend(annotation.GraphicObjectSequence)
    return found


@pytest.mark.parametrize("name", LYING)
@pytest.mark.checklist("C3")
def test_an_outline_encloses_the_very_pixels_of_the_image_that_it_is_on(name: str) -> None:
    instances = numbered(LYING[name]())
    of = source_of(instances)
    assert of.volume is not None
    wanted = {3, 9, 10, 41, 77, 90}
    [made] = states(of, region(np.isin(of.volume.voxels, list(wanted))))
    by_uid = {one.header.SOPInstanceUID: list(one.frames()) for one in instances}
    seen = set()
    for (uid, frame), graphics in drawn_on(made).items():
        stored = by_uid[uid][frame - 1].astype(int) - (1000 if len(by_uid) == 1 else 1024)
        for graphic in graphics:
            # The corner of the first pixel is 0\0, its centre a half and a half (PS3.3 section C.10.5).
            points = np.array(graphic.GraphicData, float).reshape(-1, 2)
            assert np.array_equal(points[0], points[-1])
            seen |= set(stored[polygon2mask(stored.shape, points[:-1, ::-1] - 0.5)].tolist())
    assert seen == wanted


@pytest.mark.checklist("C3")
def test_marks_have_their_words_beside_them() -> None:
    of = made_source()
    marks = (
        Mark("n-1", "Nodule", "point", np.array([[2, 1.0, 3.0]]), LESION, NODULE, probability=0.873),
        Mark("n-2", "Other", "box", np.array([[1, 1, 1], [1, 2, 4]], float), LESION, NODULE),
    )
    [made] = states(of, *marks)
    box, point = sorted(made.GraphicAnnotationSequence, key=lambda one: one.GraphicLayer, reverse=True)
    [text] = point.TextObjectSequence
    assert text.UnformattedTextValue == "Nodule 87%"
    [graphic] = point.GraphicObjectSequence
    assert (graphic.GraphicType, list(graphic.GraphicData)) == ("POINT", [3.5, 1.5])
    assert point.ReferencedImageSequence[0].ReferencedSOPInstanceUID == of.data_sets[2].SOPInstanceUID
    [outline] = box.GraphicObjectSequence
    assert np.array(outline.GraphicData).reshape(-1, 2).min(axis=0).tolist() == [1.0, 1.0]
    assert np.array(outline.GraphicData).reshape(-1, 2).max(axis=0).tolist() == [5.0, 3.0]


def test_each_region_is_a_layer_in_its_colour() -> None:
    of = made_source()
    mask = np.zeros((5, 4, 6), dtype=bool)
    mask[1:3, 1:3, 2:4] = True
    [made] = states(
        of, region(mask, "left-lung", colour=(255, 0, 0)), region(mask, "left-lung!", colour=(0, 0, 255))
    )
    names = [one.GraphicLayer for one in made.GraphicLayerSequence]
    assert names == ["LEFT LUNG 1", "LEFT LUNG 2"]
    assert [one.GraphicLayerOrder for one in made.GraphicLayerSequence] == [1, 2]
    red, blue = (one.GraphicLayerRecommendedDisplayCIELabValue for one in made.GraphicLayerSequence)
    assert red[1] > 40000
    assert blue[2] < 10000
    assert {one.GraphicLayer for one in made.GraphicAnnotationSequence} == set(names)


@pytest.mark.checklist("C2")
def test_the_whole_series_is_shown_as_its_source_is() -> None:
    of = made_source(3, WindowCenter=40, WindowWidth=400)
    [made] = states(of, region(np.ones((3, 4, 6), dtype=bool)))
    [series] = made.ReferencedSeriesSequence
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedImageSequence] == [
        one.SOPInstanceUID for one in of.data_sets
    ]
    [area] = made.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [6, 4]
    assert list(area.PresentationPixelSpacing) == [0.8, 0.5]
    [voi] = made.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (40, 400)
    assert (made.RescaleSlope, made.RescaleIntercept) == (1, -1024)
    assert made.PresentationLUTShape == "IDENTITY"
    assert (made.InstanceNumber, made.SeriesNumber > 0, "StudyID" in made) == (1, True, True)


def test_a_window_of_its_own_stays_that_of_its_image() -> None:
    of = made_source(3, WindowCenter=40, WindowWidth=400)
    of.data_sets[1].WindowCenter = 50
    [made] = states(of, region(np.ones((3, 4, 6), dtype=bool)))
    by_centre = {float(one.WindowCenter): one for one in made.SoftcopyVOILUTSequence}
    named = [one.ReferencedSOPInstanceUID for one in by_centre[50].ReferencedImageSequence]
    assert named == [of.data_sets[1].SOPInstanceUID]


def test_images_with_another_modality_lut_have_a_state_each_where_something_is_drawn() -> None:
    of = made_source(4)
    for index, data_set in enumerate(of.data_sets):
        data_set.RescaleSlope = 1 + index / 2
    mask = np.zeros((4, 4, 6), dtype=bool)
    mask[1:3, 1, 2] = True
    made = states(of, region(mask))
    assert [float(one.RescaleSlope) for one in made] == [1.5, 2.0]
    assert [one.InstanceNumber for one in made] == [1, 2]
    assert len({one.SeriesInstanceUID for one in made}) == 1
    assert all(len(one.ReferencedSeriesSequence[0].ReferencedImageSequence) == 1 for one in made)


def test_a_radiograph_that_is_dark_where_high_is_shown_so() -> None:
    [made] = states(
        image_source(PhotometricInterpretation="MONOCHROME1"), region(np.ones((1, 4, 6), dtype=bool))
    )
    assert made.PresentationLUTShape == "INVERSE"
    assert "ReferencedFrameNumber" not in made.GraphicAnnotationSequence[0].ReferencedImageSequence[0]


@pytest.mark.parametrize("function", ["SIGMOID", "LINEAR_EXACT"])
def test_a_window_keeps_its_function(function: str) -> None:
    [made] = states(
        made_source(2, WindowCenter=40, WindowWidth=400, VOILUTFunction=function),
        region(np.ones((2, 4, 6), dtype=bool)),
    )
    [voi] = made.SoftcopyVOILUTSequence
    assert (voi.VOILUTFunction, voi.WindowWidth) == (function, 400)


def table(first: int, kind: str = "", data: Any = range(8)) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [8, first, 16])
    item.LUTExplanation = "as it was calibrated"
    if kind:
        item.ModalityLUTType = kind
    item.add_new(
        "LUTData", "OW" if isinstance(data, bytes) else "US", data if isinstance(data, bytes) else list(data)
    )
    return item


@pytest.mark.parametrize("data", [range(8), np.arange(8, dtype="<u2").tobytes()], ids=["US", "OW"])
def test_look_up_tables_of_the_source_are_those_of_the_state(data: Any) -> None:
    of = image_source(ModalityLUTSequence=[table(0, "OD", data)], VOILUTSequence=[table(3, "", data)])
    [made] = states(of, region(np.ones((1, 4, 6), dtype=bool)))
    [modality], [voi] = made.ModalityLUTSequence, made.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert "RescaleSlope" not in made
    assert "WindowCenter" not in made.SoftcopyVOILUTSequence[0]
    assert modality.ModalityLUTType == "OD"
    for item, first in ((modality, 0), (voi, 3)):
        assert list(item.LUTDescriptor) == [8, first, 16]
        assert np.frombuffer(item.LUTData, "<u2").tolist() == list(range(8))
        assert item.LUTExplanation == "as it was calibrated"


def test_a_table_whose_values_begin_below_zero_is_signed() -> None:
    of = made_source(2, VOILUTSequence=[table(-1024)])
    [made] = states(of, region(np.ones((2, 4, 6), dtype=bool)))
    [voi] = made.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert voi["LUTDescriptor"].VR == "SS"
    assert list(voi.LUTDescriptor) == [8, -1024, 16]


@pytest.mark.parametrize("descriptor", [[8, 0], [9, 0, 16], [8, 0, 40]])
def test_a_table_that_is_not_whole_is_left_out(descriptor: list[int]) -> None:
    item = table(0)
    item.LUTDescriptor = descriptor
    [made] = states(made_source(2, VOILUTSequence=[item]), region(np.ones((2, 4, 6), dtype=bool)))
    assert "SoftcopyVOILUTSequence" not in made


@pytest.mark.parametrize(
    ("attributes", "aspect"),
    [
        ({}, [1, 1]),
        ({"PixelAspectRatio": [6, 5]}, [6, 5]),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, [2, 1]),
        ({"NominalScannedPixelSpacing": [0.14, 0.21]}, [2, 3]),
        ({"PixelAspectRatio": [0, 5]}, [1, 1]),
    ],
)
def test_pixels_that_are_not_square_are_shown_so(attributes: dict[str, Any], aspect: list[int]) -> None:
    of = image_source(PixelSpacing=None, **attributes)
    [made] = states(of, region(np.ones((1, 4, 6), dtype=bool)))
    [area] = made.DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelAspectRatio) == aspect
    assert "PresentationPixelSpacing" not in area


def test_a_radiograph_with_a_spacing_is_shown_in_it() -> None:
    [made] = states(image_source(), region(np.ones((1, 4, 6), dtype=bool)))
    assert list(made.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing) == [0.8, 0.5]


def test_a_palette_of_colours_has_no_state_in_grey() -> None:
    of = image_source(PhotometricInterpretation="PALETTE COLOR")
    assert states(of, region(np.ones((1, 4, 6), dtype=bool))) == []


def test_many_regions_in_many_slices_are_each_drawn_in_their_own() -> None:
    of = made_source(60)
    masks = [np.zeros((60, 4, 6), dtype=bool) for _ in range(4)]
    for index in range(60):
        for layer, mask in enumerate(masks):
            mask[index, layer, index % 6] = True
    [made] = states(of, *(region(mask, f"part-{number}") for number, mask in enumerate(masks)))
    seen = {
        (one.GraphicLayer, one.ReferencedImageSequence[0].ReferencedSOPInstanceUID): one.GraphicObjectSequence
        for one in made.GraphicAnnotationSequence
    }
    assert len(seen) == len(made.GraphicAnnotationSequence) == 240
    assert {len(objects) for objects in seen.values()} == {1}
    for layer in range(4):
        for index, data_set in enumerate(of.data_sets):
            [graphic] = seen[f"PART {layer} {layer + 1}", data_set.SOPInstanceUID]
            assert list(graphic.GraphicData[:2]) == [index % 6, layer]


def test_frames_are_named_by_their_number() -> None:
    mask = np.zeros((4, 4, 6), dtype=bool)
    mask[2, 1, 1] = True
    [made] = states(image_source(4), region(mask))
    assert list(drawn_on(made)) == [(str(image_source(4).data_sets[0].SOPInstanceUID), 3)]


def test_nothing_is_made_where_nothing_can_be_drawn() -> None:
    empty = np.zeros((5, 4, 6), dtype=bool)
    assert states(made_source(), region(empty)) == []
    assert states(image_source(SamplesPerPixel=3), region(np.ones((1, 4, 6), dtype=bool))) == []
    prior = made_source(2, StudyInstanceUID="1.2.9")
    of = replace(made_source(), name="now", others={"before": replace(prior, is_prior=True)})
    assert states(of, region(np.ones((2, 4, 6), dtype=bool), on="before")) == []


def test_noise_is_drawn_in_a_hundred_parts_and_no_more() -> None:
    of = image_source(1, None, Rows=40, Columns=60)
    mask = (np.indices((40, 60)).sum(axis=0) % 2 == 0)[None]
    [made] = states(of, region(mask))
    assert len(made.GraphicAnnotationSequence[0].GraphicObjectSequence) == 100


@pytest.mark.parametrize("shape", ["polyline", "polygon"])
def test_a_long_mark_is_drawn_with_every_second_of_its_points(shape: str) -> None:
    points = np.ones((9001, 3))
    points[:, 1:] = 2 + 0.5 * np.random.default_rng(1).random((9001, 2))
    [made] = states(made_source(), Mark("m", "M", shape, points, LESION, NODULE))  # type: ignore[arg-type]
    [graphic] = made.GraphicAnnotationSequence[0].GraphicObjectSequence
    drawn = np.array(graphic.GraphicData).reshape(-1, 2)
    assert len(drawn) == graphic.NumberOfGraphicPoints < 5000
    ends = points[0], points[0 if shape == "polygon" else -1]
    assert np.allclose(drawn[[0, -1]], np.array(ends)[:, :0:-1] + 0.5)
    assert np.allclose(drawn[7], points[14, :0:-1] + 0.5)
