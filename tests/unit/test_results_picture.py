"""A Secondary Capture shows the finding, its numbers, and never words over anatomy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from models.types import Check, Code, Evaluation, Findings, Measurement, Volume
from node.results.build import Source
from node.results.pictures.anatomy import anatomy, direction_name
from node.results.pictures.drawing import WIDTH
from node.results.pictures.lettering import printable
from node.results.pictures.picture import MORE, MOST_HEIGHT, TEXT_SIZE, CheckRow, Words, draw
from node.results.pictures.picture_words import words
from node.results.pictures.secondary_capture import picture
from node.results.source_header import SourceHeader
from tests.support.drawn import bright_box, given, plain
from tests.support.made_findings import (
    built,
    card,
    everything,
    made_source,
    quality,
    read,
    run_facts,
    two_lungs,
)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((64, 64), (1.0, 1.0)), ((20, 100), (5.0, 1.0)), ((200, 50), (1.0, 2.0))]
)
def test_the_proportions_are_those_of_the_patient(
    shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> None:
    pixels = draw(plain(np.full(shape, 255), spacing_mm), Words(""))
    left, top, right, bottom = bright_box(pixels)
    expected = shape[1] * spacing_mm[1] / (shape[0] * spacing_mm[0])
    assert (right - left) / (bottom - top) == pytest.approx(expected, rel=0.02)
    assert pixels.shape[1] == WIDTH


def test_no_word_stands_over_anatomy() -> None:
    source = made_source()
    header = SourceHeader.of(source)
    assert source.volume is not None
    findings = everything(source.volume)
    shown = anatomy(findings, given(source))
    assert shown is not None
    with_words = draw(shown, words(findings, header, run_facts(), shown))
    bare = draw(replace(shown, edges=("", "", "", "")), Words(""))
    left, top, right, bottom = bright_box(
        draw(replace(shown, grey=np.full_like(shown.grey, 255), masks=(), others=()), Words(""))
    )
    assert np.array_equal(with_words[top:bottom, left:right], bare[top:bottom, left:right])
    assert not np.array_equal(with_words[:bottom, :left], bare[:bottom, :left])


def test_the_slice_of_largest_area_is_shown_with_contours_in_the_colours_of_the_segments() -> None:
    source = made_source()
    assert source.volume is not None
    findings = two_lungs(source.volume)
    masks = [one.mask.copy() for one in findings.segments]
    for mask in masks:
        mask[3] = False
        mask[3, 1:3, 1:5] = True
    findings = replace(
        findings, segments=tuple(replace(s, mask=m) for s, m in zip(findings.segments, masks, strict=True))
    )
    only = replace(findings, segments=findings.segments[:1])
    shown = anatomy(only, given(source))
    assert shown is not None
    areas = np.count_nonzero(masks[0], axis=(1, 2))
    assert areas[shown.index] == areas.max()
    pixels = np.asarray(picture(built(only, source, kinds=("sc",))["sc"].part10))
    assert (pixels == findings.segments[0].colour).all(axis=-1).sum() > 500


def test_a_contour_runs_along_the_edge_of_its_voxels() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[2:5, 3:8] = True
    segment = replace(two_lungs(_grid()).segments[0], colour=(255, 0, 0))
    pixels = draw(plain(np.zeros((10, 10)), masks=((segment, mask),)), Words(""))
    box = bright_box(draw(plain(np.full((10, 10), 255)), Words("")))
    rows, columns = np.nonzero((pixels == (255, 0, 0)).all(axis=-1))
    scale = (box[2] - box[0]) / 10
    assert (columns.min() - box[0]) / scale == pytest.approx(3, abs=0.1)
    assert (columns.max() - box[0]) / scale == pytest.approx(8, abs=0.1)
    assert (rows.min() - box[1]) / scale == pytest.approx(2, abs=0.1)
    assert (rows.max() - box[1]) / scale == pytest.approx(5, abs=0.1)


def _grid() -> Volume:
    grid = made_source().volume
    assert grid is not None
    return grid


def test_number_unit_side_model_version_date_and_warning_are_all_said() -> None:
    source = made_source()
    assert source.volume is not None
    findings = two_lungs(source.volume)
    header = SourceHeader.of(source)
    panel = words(findings, header, run_facts(), anatomy(findings, given(source)))
    said = {(row.region, row.name, row.number, row.unit) for row in panel.numbers}
    assert ("Left lung", "Volume", "1234.5", "ml") in said
    assert ("Right lung", "Mean Attenuation Coefficient", "-850.1", "HU") in said
    assert panel.warning == "Not for diagnosis"
    assert "model lungs, version 1.2.3, anode" in panel.footer
    assert any("2026-03-0" in line for line in panel.footer)
    assert [row.text for row in panel.checks] == [
        "left lung complete: the left lung touches the last slice: no numbers"
    ]


def test_the_smallest_text_is_legible_at_512_pixels() -> None:
    # 512 pixels wide is half the size; a digit is then still 10 pixels high or so.
    font = ImageFont.load_default(TEXT_SIZE)
    box = font.getbbox("8")
    assert (box[3] - box[1]) * 512 / WIDTH >= 9


def test_a_quality_result_shows_the_middle_image_and_every_check() -> None:
    grid = _grid()
    source = made_source()
    flat = Source(
        source.data_sets,
        None,
        source.input_digest,
        np.asarray(grid.voxels[2], np.float32),
        picture_instance=2,
    )
    panel = words(quality(), SourceHeader.of(flat), run_facts(), anatomy(quality(), given(flat)))
    assert [(row.text.split(":")[0], row.passed) for row in panel.checks if row.passed is not None] == [
        ("missing slices", False),
        ("clipped pixels", True),
    ]
    assert [(row.name, row.number) for row in panel.numbers] == [("Number of instances", "12")]
    capture = read(built(quality(), flat, kinds=("sc",))["sc"])
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.data_sets[2].SOPInstanceUID
    assert list(capture.PatientOrientation) == ["L", "P"]


def test_without_any_pixels_there_is_still_a_panel() -> None:
    source = made_source()
    flat = Source(source.data_sets, None, source.input_digest)
    image = picture(built(Findings(), flat, kinds=("sc",))["sc"].part10)
    assert isinstance(image, Image.Image)
    assert image.width == WIDTH
    assert image.height < 500


def test_very_many_words_end_with_a_hint_at_the_report_and_still_with_the_footer() -> None:
    long = Findings(
        checks=tuple(Check(f"check {n}", False, "a reason of many words " * 12) for n in range(30)),
        summary="word " * 500,
    )
    flat = Source(made_source().data_sets, None, "00")
    panel = words(long, SourceHeader.of(flat), run_facts(), None)
    assert panel.checks[-1].text == "and 17 more, in the Structured Report"
    assert panel.remarks[0].endswith("word ...")
    pixels = np.asarray(picture(built(long, flat, kinds=("sc",))["sc"].part10))
    few = np.asarray(picture(built(Findings(), flat, kinds=("sc",))["sc"].part10))
    assert np.array_equal(pixels[-100:], few[-100:])


@pytest.mark.parametrize("letters", ["word ", "w"])
def test_texts_of_any_length_make_a_picture_of_a_size_that_is_sane(letters: str) -> None:
    long = letters * (100_000 // len(letters))
    concept = Code("a", "99ANODE", long)
    findings = Findings(
        measurements=(Measurement(concept, 1e300, concept),) * 24,
        evaluations=tuple(Evaluation(concept, f"{number} {long}") for number in range(14)),
        checks=(Check(long, False, long, (long,)),),
        summary=long,
    )
    run = run_facts(card=card(title=long, name=long, version=long))
    panel = draw(None, words(findings, SourceHeader.of(made_source()), run, None))
    assert panel.shape[0] <= MOST_HEIGHT
    assert panel.nbytes < 16 << 20


def test_rows_without_room_are_counted_and_the_warning_stays() -> None:
    few = draw(None, Words("title", warning="not for diagnosis", footer=("model",)))
    many = draw(
        None,
        Words("title", checks=[CheckRow("word " * 200)] * 20, warning="not for diagnosis", footer=("model",)),
    )
    assert MOST_HEIGHT - 1000 < many.shape[0] <= MOST_HEIGHT
    # The last lines are those of a panel without rows.
    assert np.array_equal(many[-150:], few[-150:])
    fitting = [number for number in range(7, 12) if np.array_equal(many, _with_rows(number))]
    assert len(fitting) == 1


def _with_rows(count: int) -> Any:
    """A panel with so many of 20 rows, and the words for the others."""
    rows = [CheckRow("word " * 200)] * count + [CheckRow(MORE.format(20 - count))]
    return draw(None, Words("title", checks=rows, warning="not for diagnosis", footer=("model",)))


@pytest.mark.parametrize(
    ("vector", "name"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, 0, -1), "F"),
        ((0.8, -0.6, 0), "LA"),
        ((0, 0, 0), ""),
    ],
)
def test_directions_are_named_in_the_letters_of_the_standard(vector: Any, name: str) -> None:
    assert direction_name(np.array(vector, dtype=float)) == name


def test_a_header_with_a_window_is_shown_in_it() -> None:
    source = made_source(WindowCenter="-500", WindowWidth="1000")
    assert source.volume is not None
    voxels = np.full_like(source.volume.voxels, -500)
    voxels[:, 0, 0], voxels[:, 0, 1] = -2000, 3000
    shown = anatomy(Findings(), given(replace(source, volume=replace(source.volume, voxels=voxels))))
    assert shown is not None
    assert (shown.grey[0, 0], shown.grey[0, 1]) == (0, 255)
    assert shown.grey[2, 2] == pytest.approx(127, abs=1)


def test_an_image_of_one_value_or_of_none_is_shown_all_the_same() -> None:
    source = made_source(Modality="MR")
    assert source.volume is not None
    for value in (0.0, 7.0, float("nan")):
        flat = Source(source.data_sets, None, "00", np.full((4, 6), value))
        shown = anatomy(Findings(), given(flat))
        assert shown is not None
        assert shown.grey.shape == (4, 6)


def test_characters_that_the_font_lacks_become_their_base_or_a_question_mark() -> None:
    assert printable("µm² é ő 左 –") == "µm² é o ? -"


@pytest.mark.checklist("C1")
def test_the_capture_is_an_rgb_image_that_says_where_it_comes_from() -> None:
    source = made_source()
    assert source.volume is not None
    findings = two_lungs(source.volume)
    capture = read(built(findings, source, kinds=("sc",))["sc"])
    assert (capture.PhotometricInterpretation, capture.SamplesPerPixel, capture.PlanarConfiguration) == (
        "RGB",
        3,
        0,
    )
    assert capture.BurnedInAnnotation == "YES"
    assert list(capture.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    union = np.logical_or.reduce([one.mask for one in findings.segments])
    largest = int(np.argmax(union.sum(axis=(1, 2))))
    [shown] = capture.SourceImageSequence
    assert shown.ReferencedSOPInstanceUID == source.data_sets[largest].SOPInstanceUID
