"""Real DICOM files for tests, which are never part of the project.

They lie in ``../shared/data`` beside the checkout, or where ``ANODE_TEST_DATA`` says.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("ANODE_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def require_data(relative: str = "") -> Path:
    """Path of a real file or folder; skip the test, saying why, where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"real images are absent: {relative or 'the data folder'} (set ANODE_TEST_DATA)")
    return path
