"""Values of an image come back from how they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage

from models.types import DerivedImage, Findings
from node.results.images.stored_values import storing
from tests.support.made_findings import HOUNSFIELD, all_built, made_source, read


@pytest.mark.parametrize("value", [0.3, -1234.56789, 1e-7, 1e6 + 0.5, 70000.0])
@pytest.mark.parametrize("sop_class", [CTImageStorage, PositronEmissionTomographyImageStorage])
def test_an_image_of_one_value_comes_back(value: float, sop_class: str) -> None:
    values = np.full((2, 3, 4), value)
    how = storing(values, sop_class, "flat")
    back: NDArray[Any] = how.stored(values) * how.slope + how.intercept
    assert np.abs(back - values).max() <= max(how.error, abs(value) * 1e-12)
    assert how.error <= abs(value) * 1e-4


@pytest.mark.checklist("I2")
def test_a_derived_image_of_one_value_holds_that_value() -> None:
    source = made_source(2)
    image = DerivedImage("flat", "Flat", np.full((2, 4, 6), 0.3, np.float32), HOUNSFIELD)
    for made in map(read, all_built(Findings(images=(image,)), source, kinds=("image",))):
        values = made.pixel_array * float(made.RescaleSlope) + float(made.RescaleIntercept)
        assert np.abs(values - np.float32(0.3)).max() < 1e-9
        assert "values exact" in made.DerivationDescription
