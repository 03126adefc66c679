"""Draws slices in their true proportions, with contours and marks, and letters for the directions outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.measure import find_contours

from node.results.pictures.anatomy import Anatomy, Drawn
from node.results.pictures.lettering import font_of

WIDTH = 1024
_EDGE_MARGIN = 64
_ANATOMY_BOX = (WIDTH - 2 * _EDGE_MARGIN, 840)
_EDGE_SIZE, _TAG_SIZE, _CAPTION_SIZE = 40, 26, 28
_GAP, _OTHER_HEIGHT = 12, 220
_BLACK, _EDGE, _GREY = (0, 0, 0), (255, 222, 120), (165, 170, 178)
# The cross leaves its middle free, so that what it marks can be seen.
_CROSS_INNER, _CROSS_OUTER = 6, 22

Place = tuple[float, float]


def drawn(anatomy: Anatomy) -> Image.Image:
    """Return the slice, its directions outside it, and further slices in a row below it."""
    shown = _slice(anatomy, _ANATOMY_BOX, is_small=False)
    others = _others(anatomy)
    height = shown.height + 2 * _EDGE_MARGIN
    whole = Image.new("RGB", (WIDTH, height + (others.height if others is not None else 0)), _BLACK)
    left, top = (WIDTH - shown.width) // 2, _EDGE_MARGIN
    whole.paste(shown, (left, top))
    _edges(ImageDraw.Draw(whole), anatomy.edges, (left, top, left + shown.width, top + shown.height))
    if others is not None:
        whole.paste(others, (0, height))
    return whole


def _others(anatomy: Anatomy) -> Image.Image | None:
    if not anatomy.others:
        return None
    count = len(anatomy.others)
    width = (WIDTH - (count + 1) * _GAP) // max(count, 3)
    pictures = [_slice(other, (width, _OTHER_HEIGHT), is_small=True) for other in anatomy.others]
    height = max(picture.height for picture in pictures)
    row = Image.new("RGB", (WIDTH, height + _CAPTION_SIZE + 3 * _GAP), _BLACK)
    pen = ImageDraw.Draw(row)
    left = (WIDTH - count * width - (count - 1) * _GAP) // 2
    for other, picture in zip(anatomy.others, pictures, strict=True):
        row.paste(picture, (left + (width - picture.width) // 2, (height - picture.height) // 2))
        place = (left + width // 2, height + _GAP)
        pen.text(place, f"slice {other.index + 1}", font=font_of(_CAPTION_SIZE), fill=_GREY, anchor="mt")
        left += width + _GAP
    return row


def _slice(anatomy: Anatomy, box: tuple[int, int], *, is_small: bool) -> Image.Image:
    rows, columns = anatomy.grey.shape[:2]
    height_mm, width_mm = rows * anatomy.spacing_mm[0], columns * anatomy.spacing_mm[1]
    scale = min(box[0] / width_mm, box[1] / height_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    shown = Image.fromarray(anatomy.grey).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(shown)
    width = 2 if is_small else 3
    for segment, mask in anatomy.masks:
        for line in _contours(mask, size):
            pen.line(line, fill=segment.colour, width=width, joint="curve")
    for one in anatomy.marks:
        # A whole number is the middle of a pixel.
        line = [
            ((column + 0.5) * size[0] / columns, (row + 0.5) * size[1] / rows)
            for row, column in one.points.tolist()
        ]
        _mark(pen, one, line, size, width, is_small=is_small)
    return shown


def _contours(mask: NDArray[np.bool_], size: tuple[int, int]) -> list[list[Place]]:
    """Return the outlines of ``mask`` in pixels of the scaled picture, half way between voxels."""
    rows, columns = mask.shape
    padded = np.pad(mask, 1).astype(np.float32)
    found = []
    for contour in find_contours(padded, 0.5):
        # A voxel's centre is half a voxel in from its edge; the padding adds one.
        x = (contour[:, 1] - 0.5) * size[0] / columns
        y = (contour[:, 0] - 0.5) * size[1] / rows
        found.append(list(zip(x.tolist(), y.tolist(), strict=True)))
    return found


def _mark(
    pen: ImageDraw.ImageDraw,
    one: Drawn,
    line: Sequence[Place],
    size: tuple[int, int],
    width: int,
    *,
    is_small: bool,
) -> None:
    """Draw a mark; beside it stands its number, by which the panel names it."""
    colour = one.mark.colour
    if one.mark.shape != "point":
        pen.line(list(line), fill=colour, width=width, joint="curve")
    else:
        (x, y), half = line[0], 0.5 if is_small else 1.0
        for along_x, along_y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            near, far = _CROSS_INNER * half, _CROSS_OUTER * half
            arm = (x + along_x * near, y + along_y * near, x + along_x * far, y + along_y * far)
            pen.line(arm, fill=colour, width=width)
    if is_small:
        return
    reach = _CROSS_OUTER if one.mark.shape == "point" else 0
    right, top = max(x for x, _ in line) + reach, min(y for _, y in line)
    is_at_right = right + 2 * _TAG_SIZE > size[0]
    left = min(x for x, _ in line) - reach
    place = (left - 6 if is_at_right else right + 6, max(top, _TAG_SIZE))
    pen.text(
        place,
        str(one.number),
        font=font_of(_TAG_SIZE),
        fill=colour,
        anchor="rs" if is_at_right else "ls",
        stroke_width=2,
        stroke_fill=_BLACK,
    )


def _edges(pen: ImageDraw.ImageDraw, edges: Sequence[str], box: tuple[int, int, int, int]) -> None:
    font = font_of(_EDGE_SIZE)
    left, top, right, bottom = box
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    places = (
        (left - 10, middle_y, "rm"),
        (right + 10, middle_y, "lm"),
        (middle_x, top - 8, "mb"),
        (middle_x, bottom + 8, "mt"),
    )
    for text, (x, y, anchor) in zip(edges, places, strict=True):
        pen.text((x, y), text, font=font, fill=_EDGE, anchor=anchor)
