"""Whether a series is one that an analysis sees, by what the index holds of its header."""

from __future__ import annotations

from collections.abc import Mapping

from node.config.settings import Patterns
from node.index.matching_rules import differs, wanted

#: Modalities whose objects describe images, not show them (PS3.3 section C.7.3.1.1.1).
MODALITIES_WITHOUT_IMAGES = frozenset(
    {
        *("SR", "SEG", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTINTENT", "RTSEGANN", "REG", "FID"),
        *("DOC", "PLAN", "AU", "ECG", "EEG", "EMG", "EOG", "EPS", "HD", "RESP", "RWV", "SMR", "ANN", "ASMT"),
        *("KER", "LEN", "AR", "SRF", "VA", "M3D", "TEXTUREMAP", "BDUS", "POS", "OSS", "STAIN"),
    }
)


def why_not(when: Patterns, header: Mapping[str, str]) -> str:
    """Why an analysis with this ``when`` does not see a series; empty when it does.

    Localizers and derived images are seen only where ``when`` names ImageType; objects without
    images only where it names Modality or SOPClassUID and these match.
    """
    difference = differs(when, header)
    if difference is not None:
        keyword, pattern, actual = difference
        shown = f"is '{actual}'" if actual else "is absent or empty"
        return f"{keyword} {shown}, the analysis wants {wanted(pattern)}"
    image_type = [value.strip().upper() for value in str(header.get("ImageType", "")).split("\\")]
    if "ImageType" not in when:
        named = "name ImageType in 'when' if such series are meant"
        if "LOCALIZER" in image_type:
            return f"the series is a localizer ({named})"
        if image_type[0] == "DERIVED":
            return f"the series is derived (ImageType begins with DERIVED; {named})"
    modality = str(header.get("Modality", "")).strip().upper()
    if modality in MODALITIES_WITHOUT_IMAGES and not {"Modality", "SOPClassUID"} & when.keys():
        return f"{modality} series hold no images (name Modality in 'when' if such series are meant)"
    return ""


def why_no_input(patterns: Patterns, header: Mapping[str, str]) -> str:
    """Why a series is no further input of an analysis; empty when it is one.

    As ``why_not``; what this node made itself is one only where the patterns name what sets it apart:
    ImageType, or the Modality or SOP class of objects without images.
    """
    reason = why_not(patterns, header)
    modality = str(header.get("Modality", "")).strip().upper()
    if reason or not header.get("is_own") or "ImageType" in patterns or modality in MODALITIES_WITHOUT_IMAGES:
        return reason
    return "this node made the series itself (name ImageType if such series are meant)"
