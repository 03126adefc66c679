"""Masks of a network's output on the grid of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.types import ParameterValue, Segment
from node.catalogue.folder_tables import OutputTable, Post, setting
from node.runners.failures import FolderFault
from node.runners.placement import Placement
from node.runners.tensors import activated

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A segment, and the probability of each voxel where the network states one and it is asked for."""

    segment: Segment
    probability: NDArray[np.float32] | None = None


def regions(
    scores: NDArray[np.generic],
    table: OutputTable,
    placement: Placement,
    voxel_ml: float,
    parameters: Mapping[str, ParameterValue],
    asked: frozenset[str],
) -> list[Region]:
    """Make the segments of one output.

    Parameters
    ----------
    scores
        (channel, axis 0, axis 1, axis 2) of the network's array
    voxel_ml
        volume of a voxel of the input, 0 when it is not known
    asked
        names of the labels whose probabilities somebody asks for

    Raises
    ------
    FolderFault
        when a label's index is no channel, or what should be probabilities is none
    """
    is_exclusive = table.activation in ("softmax", "argmax", "labels")
    if table.activation == "labels":
        if scores.shape[0] != 1:
            raise FolderFault(f"output {table.name}: a map of labels has one channel, not {scores.shape[0]}")
        winners = placement.back(np.rint(scores[0]).astype(np.int32), "nearest", -1)
    else:
        refuse_absent_channels(table, scores.shape[0])
        is_wanted = any(_wants_probability(label.name, table, asked) for label in table.labels)
        # scores are not interpolated as probabilities are, and what is asked for must not move a border
        if not is_exclusive or placement.is_resampled or is_wanted:
            scores = activated(scores, table.activation)
        winners = _winners(scores, placement) if is_exclusive else np.empty(0, np.int32)
    threshold = setting(table.threshold, parameters)
    found = []
    for label in table.labels:
        probability = None
        if not is_exclusive or _wants_probability(label.name, table, asked):
            probability = placement.back(scores[label.index].astype(np.float32), "linear")
            if probability.size and (probability.min() < -1e-4 or probability.max() > 1 + 1e-4):
                raise FolderFault(
                    f"output {table.name}: {label.name} is no probability: {probability.min():g} to "
                    f"{probability.max():g}; an activation is missing"
                )
            np.clip(probability, 0.0, 1.0, out=probability)
        if is_exclusive:
            mask = winners == label.index
        else:
            assert probability is not None
            mask = probability >= threshold
        mask = after(mask, table.post, voxel_ml, parameters)
        is_fractional = table.kind == "fractional" and probability is not None
        segment = Segment(
            label.name,
            label.label,
            mask,
            label.category,
            label.type,
            label.laterality,
            colour=label.colour,
            probability=probability if is_fractional else None,
            on=table.on,
        )
        found.append(Region(segment, probability))
    return found


def refuse_absent_channels(table: OutputTable, count: int) -> None:
    """Refuse labels for which there is none of ``count`` channels.

    Raises
    ------
    FolderFault
    """
    for label in table.labels:
        if label.index >= count:
            there = channels_of(table, count)
            raise FolderFault(f"output {table.name}: label {label.name} has index {label.index}, {there}")


def channels_of(table: OutputTable, count: int) -> str:
    """Say how many channels the tensor of an output has, and how they are counted."""
    there = "one channel: index 0" if count == 1 else f"{count} channels: index 0 to {count - 1}"
    return f"'{table.tensor}' has {there}"


def _wants_probability(name: str, table: OutputTable, asked: frozenset[str]) -> bool:
    """Whether the probability of a label is reported or asked for, and there is one."""
    return table.activation not in ("labels", "argmax") and (table.kind == "fractional" or name in asked)


def _winners(scores: NDArray[np.generic], placement: Placement) -> NDArray[np.int32]:
    """Which channel is highest at each voxel of the input; -1 where the network saw nothing."""
    if not placement.is_resampled:
        return placement.back(scores.argmax(axis=0).astype(np.int32), "nearest", -1)
    best = placement.back(scores[0].astype(np.float32), "linear")
    winners = np.zeros(best.shape, np.int32)
    for channel in range(1, scores.shape[0]):
        there = placement.back(scores[channel].astype(np.float32), "linear")
        is_higher = there > best
        winners[is_higher] = channel
        np.maximum(best, there, out=best)
    if placement.is_cropped:
        winners[placement.back(np.ones(placement.shape, np.uint8), "nearest", 0) == 0] = -1
    return winners


def after(
    mask: Mask, steps: tuple[Post, ...], voxel_ml: float, parameters: Mapping[str, ParameterValue]
) -> Mask:
    """Apply the steps of ``post``: the largest component, holes filled, components of too few ml left out."""
    from scipy import ndimage

    for step in steps:
        if not mask.any():
            return mask
        if step.kind == "fill_holes":
            mask = ndimage.binary_fill_holes(mask)
            continue
        labels, count = ndimage.label(mask)
        sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
        sizes[0] = 0
        if step.kind == "largest":
            mask = labels == sizes.argmax()
        elif voxel_ml:
            mask = (sizes * voxel_ml >= setting(step.value, parameters))[labels] & mask
    return mask


def components(mask: Mask) -> int:
    """How many parts a mask has that do not touch by a face."""
    from scipy import ndimage

    return int(ndimage.label(mask)[1])


def edge_share(mask: Mask) -> float:
    """Which share of a mask lies on the outermost voxels of its grid; an axis of one voxel has no edge."""
    total = int(np.count_nonzero(mask))
    if not total:
        return 0.0
    inner = tuple(slice(1, -1) if length > 1 else slice(None) for length in mask.shape)
    return 1.0 - int(np.count_nonzero(mask[inner])) / total
