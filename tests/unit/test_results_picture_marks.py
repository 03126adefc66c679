"""Pictures show marks by their numbers, further slices, other inputs, and what a model drew itself."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from models import types
from models.types import Findings, Mark, Picture
from node.results.check import check
from node.results.pictures.anatomy import Drawn, anatomy
from node.results.pictures.picture import Words, draw
from node.results.pictures.picture_words import words
from node.results.pictures.secondary_capture import fitted
from node.results.source_header import SourceHeader
from tests.support.drawn import bright_box, given, plain
from tests.support.made_findings import (
    LESION,
    NODULE,
    all_built,
    built,
    every_mark,
    image_source,
    made_source,
    read,
    run_facts,
    two_lungs,
    with_prior,
)


def colour_at(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of all that has ``colour``."""
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def red(shape: Any, *points: tuple[float, float, float]) -> Mark:
    return Mark("m", "M", shape, np.array(points, float), LESION, NODULE, colour=(255, 0, 0))


def drawn_on(mark: Mark, outline: Any) -> tuple[np.ndarray, float, int, int]:
    """A picture of 10 by 10 pixels with one mark, pixels of it for each of those, and its left and top."""
    black = plain(np.zeros((10, 10)))
    pixels = draw(replace(black, marks=(Drawn(mark, 1, np.array(outline, float)),)), Words(""))
    left, top, right, _ = bright_box(draw(plain(np.full((10, 10), 255)), Words("")))
    return pixels, (right - left) / 10, left, top


def test_a_cross_stands_round_the_middle_of_the_marked_pixel_and_leaves_it_free() -> None:
    pixels, scale, left, top = drawn_on(red("point", (0, 4, 6)), [(4, 6)])
    centre = (left + 6.5 * scale, top + 4.5 * scale)
    x, y = round(centre[0]), round(centre[1])
    is_red = (pixels == (255, 0, 0)).all(axis=-1)
    assert not is_red[y - 4 : y + 4, x - 4 : x + 4].any()
    for along_x, along_y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert is_red[y + 14 * along_y, x + 14 * along_x]


def test_the_outline_of_a_box_is_drawn_along_the_outer_edges_of_its_pixels() -> None:
    source = made_source()
    mark = red("box", (2, 1, 2), (2, 2, 4))
    shown = anatomy(Findings(marks=(mark,)), given(source))
    assert shown is not None
    [box] = shown.marks
    pixels, scale, left, top = drawn_on(mark, box.points)
    # The number beside it is of its colour, too, and stands at its right.
    inside = pixels[:, : int(left + 5 * scale) + 3]
    found = colour_at(inside, (255, 0, 0))
    assert (found[0] - left) / scale == pytest.approx(2, abs=0.1)
    assert (found[2] - left) / scale == pytest.approx(5, abs=0.1)
    assert (found[1] - top) / scale == pytest.approx(1, abs=0.1)
    assert (found[3] - top) / scale == pytest.approx(3, abs=0.1)


def test_the_slice_with_most_marks_is_shown_and_the_others_small() -> None:
    source = made_source(9)
    marks = tuple(
        replace(red("point", (index, 1, 1)), name=f"m{number}") for number, index in enumerate((1, 6, 6, 3))
    )
    shown = anatomy(Findings(marks=marks), given(source))
    assert shown is not None
    assert (shown.index, shown.why) == (6, "most findings")
    assert [one.number for one in shown.marks] == [2, 3]
    assert [one.index for one in shown.others] == [1, 3]


def test_a_mark_that_is_not_in_the_large_slice_is_in_a_small_one() -> None:
    source = made_source(12)
    assert source.volume is not None
    findings = two_lungs(source.volume)
    shown = anatomy(
        replace(findings, marks=(red("point", (0, 0, 0)), red("box", (4, 1, 1), (6, 2, 2)))), given(source)
    )
    assert shown is not None
    assert shown.index in (4, 5, 6)
    assert shown.others[0].index == 0
    assert len(shown.others) == 5


def test_marks_are_named_in_the_panel_by_their_number_with_certainty_and_answers() -> None:
    source = made_source()
    panel = words(Findings(marks=every_mark()), SourceHeader.of(source), run_facts(), None)
    said = [(row.region, row.name, row.number, row.unit) for row in panel.numbers]
    assert said[:2] == [
        ("1 The point, left", "Certainty of Finding", "93", "%"),
        ("2 The box, left", "Certainty of Finding", "73", "%"),
    ]
    assert "1 The point, left: Solid: Lung voxels below -950 HU (80 %)" in [row.text for row in panel.checks]


def test_very_many_numbers_end_with_a_hint_at_the_report() -> None:
    marks = tuple(replace(every_mark()[0], name=f"m{number}") for number in range(40))
    panel = words(Findings(marks=marks), SourceHeader.of(made_source()), run_facts(), None)
    assert len(panel.numbers) == 24
    assert panel.numbers[-1].name == "and 17 more, in the Structured Report"


def test_what_was_found_on_another_input_alone_is_shown_on_it() -> None:
    source = with_prior(made_source())
    on_prior = replace(red("point", (1, 1, 1)), on="prior")
    objects = built(Findings(marks=(on_prior,)), source, kinds=("sc",))
    [shown] = read(objects["sc"]).SourceImageSequence
    assert shown.ReferencedSOPInstanceUID == source.others["prior"].data_sets[1].SOPInstanceUID
    chosen = anatomy(Findings(marks=(on_prior,)), given(source))
    panel = words(Findings(marks=(on_prior,)), SourceHeader.of(source), run_facts(), chosen)
    assert "of an earlier study, slice 2 of 4" in panel.footer[1]


def test_the_frame_of_an_image_is_shown_in_colour_and_named() -> None:
    source = image_source(3)
    rgb = np.zeros((3, 4, 6, 3), np.uint8)
    rgb[1] = (10, 200, 30)
    source = replace(source, image=types.Image(rgb, None, "1"))
    findings = Findings(marks=(red("point", (1, 1, 1)),))
    shown = anatomy(findings, given(source))
    assert shown is not None
    assert shown.grey.shape == (4, 6, 3)
    capture = read(built(findings, source, kinds=("sc",))["sc"])
    assert capture.SourceImageSequence[0].ReferencedFrameNumber == 2
    assert (np.asarray(capture.pixel_array) == (10, 200, 30)).all(axis=-1).sum() > 1000


def test_a_radiograph_has_its_directions_from_its_patient_orientation() -> None:
    shown = anatomy(Findings(), given(image_source(PatientOrientation=["L", "F"])))
    assert shown is not None
    assert shown.edges == ("R", "L", "H", "F")
    assert anatomy(Findings(), given(image_source(PatientOrientation=["", ""]))).edges == ("",) * 4  # type: ignore[union-attr]


def test_a_radiograph_whose_low_values_are_bright_is_shown_so() -> None:
    shown = anatomy(Findings(), given(image_source(PhotometricInterpretation="MONOCHROME1")))
    assert shown is not None
    assert shown.grey[0, 0] > shown.grey[3, 5]


# --- pictures that a model drew ----------------------------------------------


def test_pictures_of_the_model_follow_the_first_in_its_series() -> None:
    source = made_source()
    generator = np.random.default_rng(3)
    single = generator.integers(0, 255, (15, 21, 3), np.uint8)
    several = generator.integers(0, 255, (3, 15, 21, 3), np.uint8)
    findings = Findings(pictures=(Picture("plot", "A plot", single), Picture("film", "A film", several)))
    key, plot, film = (read(one) for one in all_built(findings, source, kinds=("sc",)))
    assert len({one.SeriesInstanceUID for one in (key, plot, film)}) == 1
    assert [one.InstanceNumber for one in (key, plot, film)] == [1, 2, 3]
    assert np.array_equal(plot.pixel_array, single)
    assert (plot.ImageComments, film.ImageComments) == ("A plot", "A film")
    assert film.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert film.NumberOfFrames == 3
    assert list(film.PageNumberVector) == [1, 2, 3]
    assert np.array_equal(film.pixel_array, several)


def test_a_picture_that_is_larger_than_is_sane_is_made_smaller_with_all_its_frames() -> None:
    wide = fitted(np.zeros((2, 10, 4096, 3), np.uint8))
    assert wide.shape == (2, 5, 2048, 3)
    tall = fitted(np.zeros((4100, 20, 3), np.uint8))
    assert tall.shape == (2048, 9, 3)
    fine = np.zeros((2, 10, 2048, 3), np.uint8)
    assert fitted(fine).shape == fine.shape


def test_frames_without_an_order_are_refused() -> None:
    source = made_source()
    film = Picture("film", "A film", np.zeros((2, 8, 8, 3), np.uint8))
    [_, made] = all_built(Findings(pictures=(film,)), source, kinds=("sc",))
    for keyword, value, problem in (
        ("PageNumberVector", None, "in no order"),
        ("PageNumberVector", [1, 2, 3], "not a value for each frame"),
        ("NumberOfFrames", 3, "Pixel Data has not the length"),
    ):
        data_set = read(made)
        setattr(data_set, keyword, value)
        out = io.BytesIO()
        data_set.save_as(out)
        assert any(problem in found for found in check(out.getvalue()))
