"""The last step to the wanted size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def scaled(picture: NDArray[np.uint8], longest_side: int | None = None) -> Image.Image:
    """Make a picture of (row, column) or (row, column, 3) no larger than ``longest_side`` pixels."""
    image = Image.fromarray(picture)
    longest = max(image.size)
    if longest_side is None or longest <= longest_side:
        return image
    width, height = (max(1, round(side * longest_side / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
