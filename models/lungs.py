"""CT lung volume and density: left and right lung, ml, mean HU, and the share below -950 HU.

What counts as lung: air-containing tissue with emphysema and bullae, together with the vessels,
fissures and nodules (up to 15 mm radius) that it encloses. Trachea and main bronchi do not count,
nor do larger masses, consolidation or effusion. All three numbers are taken over that region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import lung_regions
from models.base import NEEDS_VOLUME, ModelCard, Parameter
from models.lung_grid import Mask
from models.types import Check, Code, Findings, Inputs, Measurement, Segment, Volume

LOW_ATTENUATION_HU = -950
HOUNSFIELD_UNIT = "[hnsf'U]"

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
LUNG = Code("39607008", "SCT", "Lung")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")

VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
# No standard code for this measure was found; the scheme is the project's own.
LOW_ATTENUATION = Code("LAA-950", "99ANODE", "Lung voxels below -950 HU")

MILLILITRE = Code("ml", "UCUM", "milliliter")
HOUNSFIELD = Code(HOUNSFIELD_UNIT, "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "percent")

#: Farther apart, slices miss too much of a lung's surface.
MOST_SPACING_MM = 10.0
#: On the first or last slice a lung may still show so much of its volume (ml) per mm.
MOST_AT_THE_END = 0.0003
#: Air around the body: a scanner that shows it elsewhere is not calibrated, or these are no HU.
OUTSIDE_AIR_HU = (-1060.0, -940.0)
PLAUSIBLE_ML = (150.0, 6500.0)

CARD = ModelCard(
    name="lungs",
    version="1.0.0",
    title="CT lung volume and density",
    intended_use="Volume, mean density and low-attenuation area (-950 HU) of each lung in a chest CT",
    limits=(
        "Research only, not for diagnosis. Needs the whole chest in axial slices no more than 10 mm apart. "
        "Consolidation, effusion and masses over 15 mm radius are not counted as lung. The low-attenuation "
        "area depends on kernel, slice thickness, contrast medium and depth of breath."
    ),
    inputs="one CT series of the chest as a volume in HU",
    outputs="masks of the left and right lung; of each volume in ml, mean HU, percent below -950 HU",
    evidence=(
        "Volumes of a computed phantom of closed shapes within 1 %; one real chest CT reviewed by eye. "
        "No comparison with manual contours."
    ),
    licence="Apache-2.0",
    family=Code("123104", "DCM", "Morphological Operations"),
)


@dataclass(frozen=True)
class _Side:
    name: str
    label: str
    laterality: Code
    colour: tuple[int, int, int]


_LEFT = _Side("left-lung", "Left lung", LEFT, (86, 180, 233))
_RIGHT = _Side("right-lung", "Right lung", RIGHT, (230, 159, 0))


class Lungs:
    """The model ``lungs``."""

    card = CARD
    needs = NEEDS_VOLUME
    parameters: tuple[Parameter, ...] = ()

    def predict(self, inputs: Inputs) -> Findings:
        """Measure both lungs of ``inputs.volume``.

        Raises
        ------
        ValueError
            when the series is no axial CT in HU, or holds nothing like a lung
        """
        volume = inputs.volume
        _refuse_unfit(volume)
        affine, is_swapped = _columns_across(volume.affine)
        voxels = _as_int16(volume.voxels)
        spacing = volume.spacing_mm
        if is_swapped:
            voxels = np.ascontiguousarray(voxels.transpose(0, 2, 1))
            spacing = (spacing[0], spacing[2], spacing[1])
        found = lung_regions.find(voxels, affine, spacing)
        masks = {_LEFT: found.left, _RIGHT: found.right}
        if is_swapped:
            masks = {side: np.ascontiguousarray(mask.transpose(0, 2, 1)) for side, mask in masks.items()}
        return _report(volume, masks, found)


def _refuse_unfit(volume: Volume) -> None:
    modality = volume.header.get("Modality", "CT")
    if modality != "CT":
        raise ValueError(f"the modality is {modality}, and lungs are measured in CT alone")
    if volume.unit != HOUNSFIELD_UNIT:
        raise ValueError(f"the voxels are in {volume.unit!r}, not in Hounsfield units")
    along = volume.affine[:3, 1:3] / np.linalg.norm(volume.affine[:3, 1:3], axis=0)
    normal = np.cross(along[:, 0], along[:, 1])
    if abs(normal[2]) < 0.8:
        raise ValueError("the slices are not axial")
    if min(volume.voxels.shape) < 2:
        raise ValueError("the volume is a single slice")


def _columns_across(affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Make the columns run across the body; says whether rows and columns were exchanged."""
    if abs(affine[0, 2]) >= abs(affine[0, 1]):
        return affine, False
    return affine[:, [0, 2, 1, 3]], True


def _as_int16(voxels: NDArray[Any]) -> NDArray[np.int16]:
    if voxels.dtype == np.int16:
        return voxels
    limits = np.iinfo(np.int16)
    out = np.empty(voxels.shape, np.int16)
    for index, plane in enumerate(voxels):
        out[index] = np.clip(np.rint(plane), limits.min, limits.max)
    return out


def _report(volume: Volume, masks: dict[_Side, Mask], found: lung_regions.Lungs) -> Findings:
    head_is_last = bool(volume.affine[2, 0] > 0)
    volumes_ml = {side: int(np.count_nonzero(mask)) * volume.voxel_ml for side, mask in masks.items()}
    general = [_spacing(volume), _in_plane(found.outside_ml, sum(volumes_ml.values()))]
    density = _density_scale(found.outside_air_hu)
    checks = [*general, density]
    segments = []
    sentences = []
    for side, mask in masks.items():
        own = _side_checks(side, mask, volumes_ml[side], volume, head_is_last=head_is_last)
        checks += own
        measurements: tuple[Measurement, ...] = ()
        if all(check.passed for check in (*general, *own)):
            measurements = _measure(volume, mask, volumes_ml[side], with_density=density.passed)
        segments.append(
            Segment(
                name=side.name,
                label=side.label,
                mask=mask,
                category=ANATOMICAL_STRUCTURE,
                type=LUNG,
                laterality=side.laterality,
                measurements=measurements,
                colour=side.colour,
            )
        )
        sentences.append(_sentence(side, measurements))
    checks.append(Check("airways", True, "; ".join(found.notes)))
    return Findings(segments=tuple(segments), checks=tuple(checks), summary=" ".join(sentences))


def _spacing(volume: Volume) -> Check:
    spacing = volume.spacing_mm[0]
    if spacing > MOST_SPACING_MM:
        reason = f"slices are {spacing:.1f} mm apart, more than {MOST_SPACING_MM:g} mm: no numbers"
        return Check("slice spacing", False, reason)
    return Check("slice spacing", True)


def _in_plane(outside_ml: float, total_ml: float) -> Check:
    if outside_ml > max(10.0, 0.02 * total_ml):
        reason = f"about {outside_ml:.0f} ml of lung run out of the side of the image: no numbers"
        return Check("field of view across", False, reason)
    return Check("field of view across", True)


def _density_scale(outside_air_hu: float) -> Check:
    name = "density scale"
    if np.isnan(outside_air_hu):
        return Check(name, True, "no air around the body to check the scale against")
    if not OUTSIDE_AIR_HU[0] <= outside_air_hu <= OUTSIDE_AIR_HU[1]:
        reason = f"air around the body is {outside_air_hu:.0f} HU instead of -1000: no densities"
        return Check(name, False, reason)
    return Check(name, True)


def _side_checks(
    side: _Side, mask: Mask, volume_ml: float, volume: Volume, *, head_is_last: bool
) -> list[Check]:
    lung = side.label.lower()
    if not volume_ml:
        return [Check(f"{lung} found", False, f"no {lung} was found: no numbers for it")]
    checks = [Check(f"{lung} found", True)]
    ends = {"lower": 0, "upper": -1} if head_is_last else {"lower": -1, "upper": 0}
    slice_ml_per_mm = volume.voxel_ml / volume.spacing_mm[0]
    cut = []
    for end, index in ends.items():
        at_the_end = int(np.count_nonzero(mask[index])) * slice_ml_per_mm
        if at_the_end > MOST_AT_THE_END * volume_ml:
            cut.append(f"{10 * at_the_end:.0f} cm2 of it lie on the {end} end slice")
    reason = f"the scan cuts the {lung}: {' and '.join(cut)}; no numbers for it" if cut else ""
    checks.append(Check(f"{lung} complete", not cut, reason))
    if not cut and not PLAUSIBLE_ML[0] <= volume_ml <= PLAUSIBLE_ML[1]:
        reason = f"{volume_ml:.0f} ml is no volume that a {lung} can have: no numbers for it"
        checks.append(Check(f"{lung} plausible", False, reason))
    return checks


def _measure(volume: Volume, mask: Mask, volume_ml: float, *, with_density: bool) -> tuple[Measurement, ...]:
    measurements = [Measurement(VOLUME, round(volume_ml, 1), MILLILITRE)]
    if with_density:
        total, low, count = 0.0, 0, 0
        # slice by slice: the voxels may be mapped from a file, and the lung is large
        for plane, inside in zip(volume.voxels, mask, strict=True):
            values = plane[inside]
            total += float(values.sum(dtype=np.float64))
            low += int(np.count_nonzero(values < LOW_ATTENUATION_HU))
            count += values.size
        measurements.append(Measurement(ATTENUATION, round(total / count, 1), HOUNSFIELD, derivation=MEAN))
        measurements.append(Measurement(LOW_ATTENUATION, round(100.0 * low / count, 2), PERCENT))
    return tuple(measurements)


def _sentence(side: _Side, measurements: tuple[Measurement, ...]) -> str:
    if not measurements:
        return f"{side.label}: withheld."
    parts = [f"{measurements[0].value:.0f} ml"]
    if len(measurements) > 1:
        parts.append(f"mean {measurements[1].value:.0f} HU")
        parts.append(f"{measurements[2].value:.1f} % below -950 HU")
    return f"{side.label}: {', '.join(parts)}."
