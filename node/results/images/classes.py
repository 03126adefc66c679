"""Of which SOP classes derived images are made: those whose modules are known here, and what they ask for."""

from __future__ import annotations

from pydicom.uid import (
    UID,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLEndoscopicImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from models.types import DerivedImage
from node.errors import ResultImpossible
from node.results.images.planes import Plane
from node.results.source_header import SourceHeader

#: Their Image Plane is mandatory (PS3.3 tables A.3-1, A.4-1 and A.21.3-1).
_PLACED = frozenset({CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage})
_PROJECTIONS = frozenset({
    ComputedRadiographyImageStorage, DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing, DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
})  # fmt: skip
#: Their IODs have no frames, though some sources say that they have one.
ONE_FRAME: frozenset[str] = frozenset(
    {*_PLACED, *_PROJECTIONS, SecondaryCaptureImageStorage, UltrasoundImageStorage}
)
_WITHOUT_GROUPS: frozenset[str] = ONE_FRAME | {
    DigitalIntraOralXRayImageStorageForPresentation, DigitalIntraOralXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage, OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage, UltrasoundMultiFrameImageStorage, VLEndoscopicImageStorage,
    VLMicroscopicImageStorage, VLPhotographicImageStorage, XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
}  # fmt: skip
#: Rescale Type of an enhanced CT is HU, whatever it shows (PS3.3 section C.8.15.3.10).
_HOUNSFIELD_ALONE = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
_HOUNSFIELD_UNIT = "[hnsf'U]"
_WITH_GROUPS: frozenset[str] = _HOUNSFIELD_ALONE | {
    BreastTomosynthesisImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
}  # fmt: skip


def refuse_unless_held(image: DerivedImage, placed: tuple[Plane, ...], header: SourceHeader) -> None:
    """Refuse an image that would be no valid instance of its source's class.

    Raises
    ------
    ResultImpossible
        saying why, and what to give instead
    """
    class_uid = header.instances[0].sop_class_uid
    if reason := _reason(image, placed, header, class_uid):
        raise ResultImpossible(
            f"the image {image.name} cannot be of its source's SOP class, {UID(class_uid).name}: {reason}"
        )


def _reason(image: DerivedImage, placed: tuple[Plane, ...], header: SourceHeader, class_uid: str) -> str:
    if class_uid not in _WITHOUT_GROUPS | _WITH_GROUPS:
        return "derived images of that class are not made here; give it as a map or as a picture"
    if class_uid in _PLACED and not placed[0].is_placed:
        return "such images have a place in the patient, and the source does not say where it is"
    if class_uid in ONE_FRAME and any(one.frames > 1 for one in header.instances):
        return "such images have no frames, and the source has several"
    if class_uid not in _WITH_GROUPS:
        return ""
    if len(header.instances) > 1:
        return f"it would be one multi-frame image, and the source is {len(header.instances)} of them"
    if not header.has_functional_groups:
        return "such images have functional groups, and the source has none"
    if class_uid in _HOUNSFIELD_ALONE and image.unit.value != _HOUNSFIELD_UNIT:
        return f"such images hold Hounsfield units, and this one is in {image.unit.value}; give it as a map"
    return ""
