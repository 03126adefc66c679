"""How the values of an image are stored: as whole numbers, with the Modality LUT that gives them back.

Whole numbers come back exactly where they fit into 16 bits. Others are stored in steps of a power of two,
the smallest that lets the whole range fit, and come back within half a step (PS3.3 section C.11.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    OphthalmicPhotography8BitImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLEndoscopicImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from node.results.header_values import as_decimal_string

_BYTES = {
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage, OphthalmicPhotography8BitImageStorage,
    UltrasoundImageStorage, UltrasoundMultiFrameImageStorage, VLEndoscopicImageStorage,
    VLMicroscopicImageStorage, VLPhotographicImageStorage, VLSlideCoordinatesMicroscopicImageStorage,
}  # fmt: skip
#: Their IODs have no Modality LUT, or one that changes nothing.
_AS_THEY_ARE = _BYTES | {
    BreastTomosynthesisImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation, DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation, DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing,
    XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage,
}  # fmt: skip
#: Rescale Intercept is 0 by definition (PS3.3 section C.8.9.4).
_WITHOUT_INTERCEPT = {PositronEmissionTomographyImageStorage}
_WITHOUT_SIGN = {ComputedRadiographyImageStorage}


@dataclass(frozen=True)
class Storing:
    """How values are stored: ``stored * slope + intercept`` are the values, within ``error``.

    ``dtype`` is little endian uint8, uint16 or int16; ``slope`` and ``intercept`` are as Decimal Strings
    give them.
    """

    dtype: str
    slope: float = 1.0
    intercept: float = 0.0
    error: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether stored values are the values."""
        return self.slope == 1.0 and self.intercept == 0.0

    @property
    def words(self) -> str:
        """What a person may rely on."""
        if self.error == 0:
            return "values exact"
        return f"values in steps of {2 * self.error:.6g}, within {self.error:.6g}"

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return ``values``, of any shape, as they are stored."""
        if self.is_identity and self.error == 0:
            return values.astype(self.dtype)
        scaled = np.rint((np.asarray(values, np.float64) - self.intercept) / self.slope)
        bounds = np.iinfo(self.dtype)
        return np.clip(scaled, bounds.min, bounds.max).astype(self.dtype)


def storing(values: NDArray[Any], sop_class_uid: str, what: str) -> Storing:
    """Choose how ``values`` are stored in instances of a SOP class.

    Parameters
    ----------
    values
        (slice, row, column), integers or floating point, all finite
    what
        the name of the image, for the message

    Raises
    ------
    ValueError
        when the class cannot hold them: it has no sign or no Modality LUT
    """
    low, high = float(values.min()), float(values.max())
    is_whole = _is_whole(values)
    if sop_class_uid in _AS_THEY_ARE:
        most = 255 if sop_class_uid in _BYTES else 65535
        if low < -0.5 or high > most + 0.5:
            raise ValueError(
                f"the image {what} has values from {low:.6g} to {high:.6g}, and instances of its source's "
                f"SOP class hold 0 to {most}; scale it, or give it as a map"
            )
        return Storing("u1" if most == 255 else "<u2", error=0.0 if is_whole else 0.5)
    may_be_signed = sop_class_uid not in _WITHOUT_SIGN
    if is_whole and may_be_signed and low >= -32768 and high <= 32767:
        return Storing("<i2" if low < 0 else "<u2")
    if is_whole and low >= 0 and high <= 65535:
        return Storing("<u2")
    if sop_class_uid in _WITHOUT_INTERCEPT:
        # The ends are left free: a power of two as a Decimal String may be a little less than it is.
        step = _step(high / 65534 if low >= 0 else max(high / 32766, -low / 32766))
        return Storing("<u2" if low >= 0 else "<i2", step, 0.0, step / 2)
    if is_whole and high - low <= 65535:
        return Storing("<u2", 1.0, low)
    if low == high:
        # Of one value alone it is the intercept, which has as many digits as the value.
        return Storing("<u2", 1.0, float(as_decimal_string(low)))
    step = _step((high - low) / 65533)
    intercept = float(as_decimal_string(math.floor(low / step) * step))
    return Storing("<u2", step, intercept, step / 2)


def _is_whole(values: NDArray[Any]) -> bool:
    # Slice by slice: a comparison of the whole takes as much memory again.
    return bool(np.issubdtype(values.dtype, np.integer)) or all(
        bool((one == np.rint(one)).all()) for one in values
    )


def _step(least: float) -> float:
    """Return the smallest power of two that is not less than ``least``, as a Decimal String gives it."""
    return float(as_decimal_string(2.0 ** math.ceil(math.log2(least)))) if least > 0 else 1.0
