"""Frames as pictures: as the object says, and small ones by the levels of the wavelet."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space

from node.config.settings import LimitsConfig
from node.errors import UnsupportedPixelData
from node.pictures import reading, rendering, scaling
from node.pictures.reading import Frame
from node.transcode import codestreams, reduced
from node.transcode.codecs import CODECS
from tests.support import made
from tests.support.made_pixels import KINDS, colour, grey, multi_frame, segments, smooth, with_palette
from tests.support.settling import settled

EXPLICIT = str(uid.ExplicitVRLittleEndian)


def frame_of(data_set: Dataset, number: int = 1, **options: Any) -> Frame:
    return reading.read_frame(io.BytesIO(made.encoded(data_set)), EXPLICIT, number, LimitsConfig(), **options)


def shown(data_set: Dataset, number: int = 1, **options: Any) -> np.ndarray:
    return rendering.picture(frame_of(data_set, number), **options)


def ramp(**attributes: Any) -> Dataset:
    """Two rows of -1024 to 3071 in steps of 16."""
    values = np.tile(np.arange(-1024, 3072, 16, dtype=np.int16), (2, 1))
    return made.ct_image(pixels=values, **attributes)


# --- the window ------------------------------------------------------------------


def test_a_linear_window_is_that_of_the_standard() -> None:
    row = shown(ramp(WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0))[0]
    values = np.arange(-1024, 3072, 16)
    # PS3.3 section C.11.2.1.2.1
    expected = ((values - 39.5) / 399 + 0.5) * 255
    assert np.array_equal(row, np.rint(np.clip(expected, 0, 255)).astype(np.uint8))
    assert row[values <= -160].max() == 0
    assert row[values > 239].min() == 255


def test_the_window_is_of_rescaled_values() -> None:
    plain = shown(ramp(WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0))
    scaled = shown(ramp(WindowCenter=-920, WindowWidth=800, RescaleSlope=2, RescaleIntercept=-1000))
    assert np.abs(plain.astype(int) - scaled).max() <= 1


def test_exact_and_sigmoid_windows_differ_from_the_linear_one() -> None:
    values = np.arange(-1024, 3072, 16)
    window = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": 0}
    exact = shown(ramp(**window, VOILUTFunction="LINEAR_EXACT"))[0]
    assert np.array_equal(exact, np.rint(np.clip((values - 40) / 400 + 0.5, 0, 1) * 255).astype(np.uint8))
    sigmoid = shown(ramp(**window, VOILUTFunction="SIGMOID"))[0]
    assert np.array_equal(sigmoid, np.rint(255 / (1 + np.exp(-4 * (values - 40) / 400))).astype(np.uint8))


def test_a_linear_window_of_floating_point_values_is_exact() -> None:
    image = ramp(WindowCenter=0.5, WindowWidth=1.0)
    values = np.linspace(0.0, 1.0, 256, dtype="<f4").reshape(2, 128)
    del image.PixelData
    image.Rows, image.Columns, image.BitsAllocated = 2, 128, 32
    for keyword in ("BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"):
        image.pop(keyword, None)
    image.FloatPixelData = values.tobytes()
    assert np.array_equal(shown(image).ravel(), np.arange(256))


def test_the_first_of_several_windows_counts_and_one_that_is_asked_for_before_it() -> None:
    several = ramp(WindowCenter=[40, 500], WindowWidth=[400, 2000], RescaleSlope=1, RescaleIntercept=0)
    one = ramp(WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0)
    other = ramp(WindowCenter=500, WindowWidth=2000, RescaleSlope=1, RescaleIntercept=0)
    assert np.array_equal(shown(several), shown(one))
    assert np.array_equal(shown(several, window=(500, 2000)), shown(other))


def test_without_a_window_padding_has_no_part_in_the_range() -> None:
    data_set = ramp(PixelPaddingValue=-1024)
    for keyword in ("WindowCenter", "WindowWidth"):
        data_set.pop(keyword, None)
    row = shown(data_set)[0]
    assert (row[0], row[1], row[-1]) == (0, 0, 255)
    assert row[2] == 1 or row[18] > 0
    assert list(row) == sorted(row)


def test_monochrome1_is_shown_the_other_way_round() -> None:
    window = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": 0}
    inverse = shown(ramp(**window, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverse, 255 - shown(ramp(**window)))


def test_a_voi_lut_is_looked_up() -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 8]
    item["LUTDescriptor"].VR = "US"
    item.add_new(0x00283006, "US", [value // 16 // 2 for value in range(4096)])
    values = np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (2, 1))
    data_set = made.ct_image(pixels=values, RescaleSlope=1, RescaleIntercept=0)
    data_set.VOILUTSequence = [item]
    assert np.array_equal(shown(data_set)[0], np.arange(256, dtype=np.uint8) // 2)


def test_an_enhanced_image_has_its_window_by_frame() -> None:
    data_set = multi_frame()
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"):
        data_set.pop(keyword, None)

    def item(**values: Any) -> Dataset:
        made_item = Dataset()
        for keyword, value in values.items():
            setattr(made_item, keyword, value)
        return made_item

    transformation = item(RescaleSlope=2, RescaleIntercept=-100)
    data_set.SharedFunctionalGroupsSequence = [item(PixelValueTransformationSequence=[transformation])]
    data_set.PerFrameFunctionalGroupsSequence = [
        item(FrameVOILUTSequence=[item(WindowCenter=100 * number, WindowWidth=100)]) for number in range(5)
    ]
    flat = multi_frame()
    flat.RescaleSlope, flat.RescaleIntercept, flat.WindowCenter, flat.WindowWidth = 2, -100, 300, 100
    assert np.array_equal(shown(data_set, 4), shown(flat, 4))
    assert not np.array_equal(shown(data_set, 3), shown(flat, 3))


# --- colours ---------------------------------------------------------------------


def test_colours_are_red_green_and_blue_whatever_they_were() -> None:
    assert np.array_equal(shown(made.colour_image(pixels=colour())), colour())
    assert np.array_equal(shown(made.colour_image(pixels=colour(), planar=True)), colour())
    luminance = made.colour_image(pixels=colour(), PhotometricInterpretation="YBR_FULL")
    assert np.array_equal(shown(luminance), convert_color_space(colour(), "YBR_FULL", "RGB"))


def test_a_palette_is_looked_up_and_never_averaged() -> None:
    data_set = with_palette()
    indices = smooth(81, 65).astype(np.uint8)
    for place, name in enumerate(("Red", "Green", "Blue")):
        entries = (np.arange(256, dtype=np.uint16) * (place + 1) % 256) << 8
        setattr(data_set, f"{name}PaletteColorLookupTableData", entries.tobytes())
    picture = shown(data_set)
    assert np.array_equal(picture[..., 1], (indices.astype(int) * 2 % 256).astype(np.uint8))
    small = frame_of(data_set, longest_side=20).samples
    assert np.array_equal(small, indices[::4, ::4])


def test_bits_are_black_and_white() -> None:
    first, last = shown(segments(), 1), shown(segments(), 3)
    bits = np.unpackbits(np.frombuffer(segments().PixelData, np.uint8), bitorder="little")
    assert np.array_equal(first, bits[: 41 * 65].reshape(41, 65) * 255)
    assert np.array_equal(last, bits[2 * 41 * 65 : 3 * 41 * 65].reshape(41, 65) * 255)


# --- frames ----------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["rle", "jpeg-ls", "jpeg2000", "htj2k"])
def test_any_frame_is_read_without_those_before_it(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settlement, stored = settled(made.encoded(multi_frame()), EXPLICIT, choice)
    decoded = []
    honest = codestreams.decode
    monkeypatch.setattr(codestreams, "decode", lambda *asked: (decoded.append(1), honest(*asked))[1])
    for number in range(1, 6):
        frame = reading.read_frame(
            io.BytesIO(stored), settlement.stored_transfer_syntax_uid, number, LimitsConfig()
        )
        assert np.array_equal(frame.samples, frame_of(multi_frame(), number).samples)
    assert len(decoded) == 5


@pytest.mark.parametrize("number", [0, 6])
def test_a_frame_that_is_not_there_is_told(number: int) -> None:
    with pytest.raises(UnsupportedPixelData, match=f"there is no frame {number}: the image has 5"):
        frame_of(multi_frame(), number)


def test_an_instance_without_pixels_has_no_picture() -> None:
    with pytest.raises(UnsupportedPixelData, match="no pixels"):
        frame_of(made.instance())


# --- small ones ------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), [(256, 192), (251, 187), (256, 3)])
@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("choice", ["jpeg2000", "htj2k", "htj2k-rpcl", "jpeg-ls"])
def test_a_small_picture_is_that_of_the_whole_one(
    choice: str, is_signed: bool, columns: int, rows: int
) -> None:
    y, x = np.mgrid[:rows, :columns]
    values = 1000 * np.sin(x / 40) * np.cos(y / 30) + (0 if is_signed else 2000)
    image = made.ct_image(
        pixels=values.astype(np.int16 if is_signed else np.uint16), BitsStored=12, HighBit=11
    )
    settlement, stored = settled(made.encoded(image), EXPLICIT, choice)
    syntax = settlement.stored_transfer_syntax_uid
    for levels, longest in ((0, 256), (1, 120), (2, 62), (3, 31)):
        frame = reading.read_frame(
            io.BytesIO(stored), syntax, 1, LimitsConfig(), longest_side=min(longest, columns)
        )
        assert frame.levels == levels
        side = 2**levels
        assert frame.samples.shape == (-(-rows // side), -(-columns // side))
        assert frame.samples.dtype == (np.int16 if is_signed else np.uint16)
        expected = frame_of(image).samples[::side, ::side].astype(int)
        assert np.abs(frame.samples.astype(int) - expected).mean() < 12 * side


@pytest.mark.parametrize("choice", ["jpeg2000", "htj2k"])
def test_only_the_levels_that_are_needed_are_decoded(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settlement, stored = settled(made.encoded(made.colour_image(pixels=_even_colour())), EXPLICIT, choice)
    syntax = settlement.stored_transfer_syntax_uid

    def whole(*_: Any) -> None:
        raise AssertionError("the whole frame was decoded")

    monkeypatch.setattr(codestreams, "decode", whole)
    small = reading.read_frame(io.BytesIO(stored), syntax, 1, LimitsConfig(), longest_side=32)
    assert small.samples.shape == (32, 32, 3)
    wanted = _even_colour().reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.samples.astype(float) - wanted).mean() < 12


def _even_colour() -> np.ndarray:
    y, x = np.mgrid[:128, :128]
    planes = [128 + 100 * np.sin(x / 30), 128 + 100 * np.cos(y / 25), (x + y) / 2]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", CODECS)
def test_every_kind_has_a_small_picture_however_it_is_stored(kind: str, choice: str) -> None:
    settlement, stored = settled(made.encoded(KINDS[kind]()), EXPLICIT, choice)
    frame = reading.read_frame(
        io.BytesIO(stored), settlement.stored_transfer_syntax_uid, 1, LimitsConfig(), longest_side=16
    )
    picture = rendering.picture(frame)
    assert picture.dtype == np.uint8
    assert max(picture.shape[:2]) in range(16, 34)
    assert max(scaled_size(picture)) == 16


def scaled_size(picture: np.ndarray) -> tuple[int, int]:
    return scaling.scaled(picture, 16).size


def test_a_pyramid_is_made_of_means_and_an_odd_side_is_rounded_up() -> None:
    facts = frame_of(grey("u2", 0, 200)).facts
    samples = np.array([[0, 2, 4], [2, 4, 8], [10, 10, 0]], np.uint16)
    assert np.array_equal(reduced.halved(samples, facts), [[2, 6], [10, 0]])


def test_a_damaged_stream_has_no_picture_in_any_size() -> None:
    settlement, stored = settled(made.encoded(grey("u2", 0, 4000)), EXPLICIT, "htj2k")
    start = settlement.private["stored"]["frames_offset"]
    cut = stored[: start + 40] + bytes(len(stored) - start - 48) + stored[-8:]
    for longest in (None, 20):
        with pytest.raises(UnsupportedPixelData):
            reading.read_frame(
                io.BytesIO(cut),
                settlement.stored_transfer_syntax_uid,
                1,
                LimitsConfig(),
                longest_side=longest,
            )
