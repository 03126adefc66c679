"""A Secondary Capture as a PNG file, for people without a DICOM viewer at hand."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from pydicom import dcmread


def save_picture(capture: Path, picture: Path) -> Path:
    """Write the pixels of the colour or grey Secondary Capture ``capture`` to ``picture`` (PNG)."""
    Image.fromarray(dcmread(capture).pixel_array).save(picture)
    return picture
