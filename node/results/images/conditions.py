"""Elements that are there on a condition: sources have them without, a derived image must not."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from node.results.header_values import items, numbers, text

#: Of an MR image, with the part of Scanning Sequence or Scan Options that asks for it (PS3.3 C.8.3.1).
_OF_MR = (("InversionTime", "ScanningSequence", {"IR"}), ("TriggerTime", "ScanOptions", {"CG", "PPG"}))


def take_out_what_no_mr_asks_for(data_set: Dataset) -> None:
    """Take out the times of an inversion or a trigger that there was not."""
    for keyword, asking, words in _OF_MR:
        if keyword in data_set and not words & set(text(data_set, asking).split("\\")):
            delattr(data_set, keyword)


def mend_frames(data_set: Dataset, groups: Sequence[Dataset]) -> None:
    """Make functional groups hold to the index that their data set has, and to directions that are some.

    Dimension Index Values count from 1 and are as many as the index has parts (PS3.3 section C.7.6.17).
    """
    contents = [item for group in groups for item in items(group, "FrameContentSequence")]
    indices = [numbers(item, "DimensionIndexValues") for item in contents]
    count = len(items(data_set, "DimensionIndexSequence"))
    if not count or any(len(one) != count for one in indices):
        for item in contents:
            if "DimensionIndexValues" in item:
                del item.DimensionIndexValues
    elif indices:
        # Some scanners count a part from 0.
        shift = [1 if min(part) < 1 else 0 for part in zip(*indices, strict=True)]
        for item, values in zip(contents, indices, strict=True):
            item.DimensionIndexValues = [int(value) + more for value, more in zip(values, shift, strict=True)]
    # Of original frames; those of others may do without (PS3.3 section C.8.13.5).
    for group in groups:
        for item in items(group, "MRVelocityEncodingSequence"):
            if (direction := numbers(item, "VelocityEncodingDirection")) and not any(direction):
                del group.MRVelocityEncodingSequence
                break
        for item in items(group, "MRModifierSequence"):
            if text(item, "InversionRecovery") == "YES" and "InversionTimes" not in item:
                del group.MRModifierSequence
                break
