"""Where shapes lie, for the rules of ``check`` that ask whether they are flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Points of a contour are written to the micrometre, those of a report in single precision.
_PLANE_TOLERANCE_MM = 0.01


def lie_in_a_plane(points: NDArray[np.float64]) -> bool:
    """Return whether (n, 3) points in mm do; with memory for a few numbers for each."""
    if len(points) <= 3:
        return True
    apart = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[1][2]
    return float(apart) <= _PLANE_TOLERANCE_MM * float(np.sqrt(len(points)))
