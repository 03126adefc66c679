"""The side of a paired body part (PS3.3 section C.7.3.1, Laterality is of type 2C)."""

from __future__ import annotations

from pydicom.dataset import Dataset

#: Body Part Examined of what the body has once. Whether another is paired, nobody can tell for sure.
UNPAIRED = {
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BLADDER", "BRAIN", "CERVIX", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "CSPINE", "ESOPHAGUS", "HEAD", "HEADNECK", "HEART", "LIVER", "LSPINE",
    "MEDIASTINUM", "NECK", "PANCREAS", "PELVIS", "PROSTATE", "RECTUM", "SKULL", "SPINE", "SPLEEN",
    "SSPINE", "STERNUM", "STOMACH", "TSPINE", "UTERUS", "WHOLEBODY",
}  # fmt: skip


def set_laterality(data_set: Dataset, of_source: str = "") -> None:
    """Leave the side as the source has it, once; empty where it says none of a part that may be paired.

    ``of_source`` is the side that the source states, for a data set that has not taken it over.
    """
    groups = [*data_set.get("SharedFunctionalGroupsSequence", [])]
    groups += [*data_set.get("PerFrameFunctionalGroupsSequence", [])][:1]
    # Frames have theirs in Frame Anatomy.
    if "ImageLaterality" in data_set or any("FrameAnatomySequence" in group for group in groups):
        if "Laterality" in data_set:
            del data_set.Laterality
        return
    if data_set.get("BodyPartExamined") in UNPAIRED:
        if "Laterality" in data_set:
            del data_set.Laterality
    elif "Laterality" not in data_set:
        data_set.Laterality = of_source or None
