"""What derived images of a PET say of their series and of their unit (PS3.3 section C.8.9.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from models.types import Code, DerivedImage
from node.errors import ResultImpossible

#: UCUM, as CID 84 and CID 85 of PS3.16 have it, to Units (0054,1001) and SUV Type (0054,1006).
_UNITS: dict[str, tuple[str, str]] = {
    "Bq/ml": ("BQML", ""), "1": ("NONE", ""), "": ("NONE", ""), "%": ("PCNT", ""),
    "{counts}": ("CNTS", ""), "{counts}/s": ("CPS", ""), "{propcounts}": ("PROPCNTS", ""),
    "{propcounts}/s": ("PROPCPS", ""), "cm2": ("CM2", ""), "mg/min/ml": ("MGMINML", ""),
    "umol/min/ml": ("UMOLMINML", ""), "ml/min/g": ("MLMING", ""), "ml/g": ("MLG", ""),
    "/cm": ("1CM", ""), "umol/ml": ("UMOLML", ""), "ml/min/ml": ("MLMINML", ""), "ml/ml": ("MLML", ""),
    "{stddev}": ("STDDEV", ""), "g/ml": ("GML", "BW"), "{SUVbw}g/ml": ("GML", "BW"),
    "{SUVlbm}g/ml": ("GML", "LBM"), "{SUVibw}g/ml": ("GML", "IBW"), "cm2/ml": ("CM2ML", "BSA"),
    "{SUVbsa}cm2/ml": ("CM2ML", "BSA"),
}  # fmt: skip
#: A quantity says more than ``g/ml`` does: SUV by body weight, lean body mass, body surface, ideal weight.
_SUV_TYPES = {"126401": "BW", "126402": "LBM", "126403": "BSA", "126404": "IBW"}


def set_pet_series(data_set: Dataset, count: int, index: int) -> None:
    """Say how many slices there are, and leave out what other types of series have."""
    data_set.NumberOfSlices, data_set.ImageIndex = count, index + 1
    kind = str(next(iter(data_set.get("SeriesType") or [""])))
    for keyword, of in (
        ("NumberOfTimeSlices", "DYNAMIC"),
        ("NumberOfTimeSlots", "GATED"),
        ("NumberOfRRIntervals", "GATED"),
        ("TriggerTime", "GATED"),
        ("FrameTime", "GATED"),
    ):
        if keyword in data_set and kind != of:
            delattr(data_set, keyword)


def set_pet_units(data_set: Dataset, image: DerivedImage) -> None:
    """Set Units, and SUV Type where they are standardized uptake values, to those of the image itself.

    Raises
    ------
    ResultImpossible
        when PET images have no code for its unit
    """
    if "SUVType" in data_set:
        del data_set.SUVType
    units = _UNITS.get(image.unit.value.replace("mL", "ml"))
    if units is None:
        raise ResultImpossible(
            f"the image {image.name} is in {image.unit.value}, for which images of a PET have no code; "
            "give it as a map"
        )
    data_set.Units, suv_type = units
    if suv_type:
        data_set.SUVType = _stated(image.quantity) or suv_type


def _stated(quantity: Code | None) -> str:
    return _SUV_TYPES.get(quantity.value, "") if quantity is not None and quantity.scheme == "DCM" else ""
