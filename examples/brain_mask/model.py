"""Intracranial mask of a T1-weighted MR by the two networks of deepbet 1.0.2 (MIT).

One network finds the head in a small copy of the volume, the other the mask in what the first has found.
"""

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import interpolate

from models.types import Code, Findings, Inputs, Measurement, Segment
from node.runners.placement import place
from node.runners.torch_network import prepared_device, scripted

SMALL, LARGE = (128, 128, 128), (256, 256, 256)
MARGIN = 0.1
LEAST_OF_A_PLANE = 0.02
STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
BRAIN = Code("12738006", "SCT", "Brain")
AGREEMENT = Code("STAGE-DICE", "99ANODE", "Dice of the masks of two networks")
UNCERTAIN = Code("UNCERTAIN-SHARE", "99ANODE", "Voxels of uncertain border, to those of the mask")
NO_UNIT, PERCENT = Code("1", "UCUM", "no units"), Code("%", "UCUM", "percent")
EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)


class BrainMask:
    """Both networks, loaded once."""

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        self._device = prepared_device(device, threads, folder)
        self._finder = scripted(folder / "weights" / "bbox_model.pt").to(self._device)
        self._masker = scripted(folder / "weights" / "model.pt").to(self._device)

    def predict(self, inputs: Inputs) -> Findings:
        """Return the mask; raises ValueError when the first network finds nothing."""
        volume = inputs.volume
        placed = place(volume.voxels.shape, volume.affine, orientation="RAS")
        turned = np.ascontiguousarray(placed.turned(volume.voxels), np.float32)
        with torch.inference_mode():
            probability, small = self._mask(torch.from_numpy(turned).to(self._device))
        found = largest(probability > inputs.parameters["certainty"])
        found = ndimage.binary_fill_holes(found)
        uncertain = int(np.count_nonzero((probability > 0.1) & (probability < 0.9)))
        numbers = (
            Measurement(AGREEMENT, dice(resized(found, SMALL) > 0.5, small), NO_UNIT, name="agreement"),
            Measurement(
                UNCERTAIN,
                100.0 * uncertain / max(1, int(np.count_nonzero(found))),
                PERCENT,
                name="uncertain share",
            ),
        )
        mask = placed.back(found.astype(np.uint8), "nearest") != 0
        segment = Segment(
            "intracranial", "Intracranial contents", mask, STRUCTURE, BRAIN, colour=(0, 158, 115)
        )
        return Findings(segments=(segment,), measurements=numbers)

    def _mask(self, voxels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities on the grid of ``voxels``, and what the first network said on its own."""
        copy = scaled(voxels, SMALL)
        low, high = copy.quantile(0.005), copy.quantile(0.995)
        if not high > low:
            raise ValueError("the volume is constant")
        small = self._finder(normalised(copy, low, high))[0, 1].cpu().numpy() > 0.5
        if not small.any():
            raise ValueError("there is nothing like a head in the volume")
        small = largest(small)
        box = box_around(small, tuple(voxels.shape))
        said = self._masker(normalised(scaled(voxels[box], LARGE), low, high))[0, 1]
        probability = torch.zeros_like(voxels)
        probability[box] = scaled(said, tuple(probability[box].shape))
        return probability.cpu().numpy(), small


def scaled(voxels: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Resample to ``shape`` by the nearest voxel."""
    return interpolate(voxels[None, None], shape, mode="nearest-exact")[0, 0]


def resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample a mask as ``scaled`` does."""
    return scaled(torch.from_numpy(mask.astype(np.float32)), shape).numpy()


def normalised(voxels: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return (batch, channel, x, y, z) with the mean and deviation that the networks learned with."""
    spread = ((voxels - low) / (high - low)).clamp(0, 1)
    return (0.226 * (spread - spread.mean()) / spread.std() + 0.449)[None, None]


def largest(mask: np.ndarray) -> np.ndarray:
    """Keep the largest part; parts touch by a face, an edge or a corner."""
    labels, count = ndimage.label(mask, EVERY_NEIGHBOUR)
    if not count:
        return mask
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return labels == sizes.argmax()


def box_around(small: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return where the head is on a grid of ``shape``, with a margin."""
    box = []
    for axis in range(3):
        others = tuple(one for one in range(3) if one != axis)
        planes = np.flatnonzero(small.mean(axis=others) > LEAST_OF_A_PLANE)
        if not planes.size:
            raise ValueError("there is nothing like a head in the volume")
        factor = shape[axis] / small.shape[axis]
        centre = round(float(factor * (planes[-1] + 1 + planes[0]) / 2))
        size = round(float(factor * (1 + 2 * MARGIN) * (planes[-1] + 1 - planes[0])))
        box.append(slice(max(0, int(centre - size / 2)), min(shape[axis], int(centre + size / 2))))
    return tuple(box)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """How far two masks overlap, 0 to 1."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2.0 * int(np.count_nonzero(one & other)) / total if total else 0.0
