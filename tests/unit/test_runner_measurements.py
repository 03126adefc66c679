"""Numbers over segments say what they are, and are taken where the values lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.types import Code, Findings, Image, Inputs, Measurement, Segment, Volume
from node.catalogue import model_folder
from node.catalogue.folder_tables import DERIVED_KINDS
from node.processes.refusals import is_refusal
from node.runners.conclusions import concluded
from node.runners.failures import FolderFault
from tests.support import made_folders

TISSUE = Code("85756007", "SCT", "Tissue")
INPUTS = '[[input]]\nname = "pet"\nas = "volume"\n[[input]]\nname = "ct"\nas = "volume"\nfrom = "study"\n'
PET_SHAPE, CT_SHAPE = (6, 8, 10), (14, 30, 40)
#: The voxels of the PET are 4 mm and those of the CT 1 mm wide, and neither begins where the other does.
PET_AFFINE = np.array([[0, 0, 4, 2], [0, 4, 0, 1], [4, 0, 0, 3], [0, 0, 0, 1]], np.float64)
CT_AFFINE = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]], np.float64)


def folder(path: Path, tables: str, inputs: str = INPUTS) -> Any:
    (path / "model.py").write_text("class Model: ...\n")
    runner = 'kind = "python"\nentry = "model.py:Model"'
    return model_folder.read(made_folders.folder(path, inputs + tables, runner=runner))


def measurement(name: str, kind: str, **more: Any) -> str:
    lines = [f'name = "{name}"', 'of = "hot"', f'as = "{kind}"']
    lines += [f"{key} = {value!r}".replace("'", '"') for key, value in more.items()]
    return "[[measurement]]\n" + "\n".join(lines) + "\n"


def hot(voxels: list[tuple[int, int, int]], on: str = "") -> Findings:
    mask = np.zeros(PET_SHAPE, np.bool_)
    for at in voxels:
        mask[at] = True
    return Findings((Segment("hot", "Hot", mask, TISSUE, TISSUE, on=on),))


def given(frame: str | None = "a", of_pet: str | None = "a") -> Inputs:
    """A PET, and a CT whose values are where they lie: 100 z + y / 2 - x, in mm of the patient."""
    slices, rows, columns = np.indices(CT_SHAPE)
    ct = made_folders.volume(100.0 * (2 * slices) + rows / 2 - columns, CT_AFFINE)
    pet = made_folders.volume(np.arange(480, dtype=np.float32).reshape(PET_SHAPE), PET_AFFINE, "g/ml")
    pet = replace(pet, header={"FrameOfReferenceUID": of_pet})
    return Inputs({"pet": pet, "ct": replace(ct, header={"FrameOfReferenceUID": frame})})


def numbers(findings: Findings) -> dict[str, Measurement]:
    return {one.name: one for segment in findings.segments for one in segment.measurements}


def there(at: tuple[int, int, int]) -> NDArray[np.float64]:
    """Where a voxel of the PET lies: (x, y, z) in mm."""
    place: NDArray[np.float64] = (PET_AFFINE @ [*at, 1])[:3]
    return place


def test_values_of_another_series_are_those_at_the_same_place_of_the_patient(tmp_path: Path) -> None:
    stated = folder(tmp_path, measurement("density", "mean", over="ct") + measurement("uptake", "mean"))
    voxels = [(1, 2, 3), (2, 5, 6), (4, 1, 0)]
    taken = numbers(concluded(stated, given(), hot(voxels), {}))
    expected = np.mean([100 * there(at)[2] + there(at)[1] / 2 - there(at)[0] for at in voxels])
    assert taken["density"].value == pytest.approx(expected, abs=1e-3)
    assert taken["density"].unit.value == "[hnsf'U]"
    assert taken["density"].method is not None
    assert taken["density"].method.meaning == "In the values of ct"
    assert taken["uptake"].method is None
    assert taken["uptake"].unit.value == "g/ml"


def test_volumes_of_one_shape_are_not_taken_for_one_grid(tmp_path: Path) -> None:
    stated = folder(tmp_path, measurement("density", "mean", over="ct"))
    inputs = given()
    pet = inputs.given["pet"]
    assert isinstance(pet, Volume)
    moved = PET_AFFINE.copy()
    moved[2, 3] -= 4.0
    other = replace(pet, affine=moved, unit="1")
    found = concluded(stated, Inputs({"pet": pet, "ct": other}), hot([(1, 2, 3)]), {})
    assert numbers(found)["density"].value == pet.voxels[2, 2, 3]


def test_a_segment_that_leaves_the_other_series_has_no_number_and_the_reason_is_told(tmp_path: Path) -> None:
    stated = folder(
        tmp_path,
        measurement("density", "mean", over="ct")
        + '[[check]]\nname = "dense"\nmeasurement = "density"\nminimum = 0\nreason = "too thin"\n'
        'withholds = ["density"]\n',
    )
    inside, beyond = (1, 2, 3), (1, 7, 9)
    assert there(beyond)[1] < 30
    taken = concluded(stated, given(), hot([inside, beyond]), {})
    assert numbers(taken)
    ct = given().given["ct"]
    assert isinstance(ct, Volume)
    smaller = replace(ct, voxels=ct.voxels[:, :, :30])
    inputs = Inputs({**given().given, "ct": smaller})
    left = concluded(stated, inputs, hot([inside, beyond]), {})
    assert numbers(left) == {}
    assert [(one.name, one.passed, one.reason) for one in left.checks] == [
        ("density taken", False, "a part of hot lies beyond 'ct'"),
        ("dense", False, "too thin: density could not be taken"),
    ]


def test_series_in_different_frames_of_reference_are_unfit(tmp_path: Path) -> None:
    stated = folder(tmp_path, measurement("density", "mean", over="ct"))
    with pytest.raises(ValueError, match="'ct' and 'pet' have different frames of reference") as caught:
        concluded(stated, given("b"), hot([(1, 2, 3)]), {})
    assert is_refusal(caught.value, stated, tmp_path)


@pytest.mark.parametrize(
    ("of_ct", "of_pet", "named"), [("a", None, "pet"), (None, "a", "ct"), (None, None, "ct")]
)
def test_series_without_a_frame_of_reference_are_unfit(
    tmp_path: Path, of_ct: str | None, of_pet: str | None, named: str
) -> None:
    stated = folder(tmp_path, measurement("density", "mean", over="ct") + measurement("uptake", "mean"))
    inputs = given(of_ct, of_pet)
    with pytest.raises(
        ValueError, match=f"measurement density: '{named}' has no Frame of Reference"
    ) as caught:
        concluded(stated, inputs, hot([(1, 2, 3)]), {})
    assert is_refusal(caught.value, stated, tmp_path)


def test_what_is_measured_in_one_series_needs_no_frame_of_reference(tmp_path: Path) -> None:
    stated = folder(tmp_path, measurement("uptake", "mean"))
    taken = numbers(concluded(stated, given(None, None), hot([(1, 2, 3)]), {}))
    assert taken["uptake"].value == 103


def test_a_region_that_is_not_found_is_a_fault_of_the_folder_and_no_refusal(tmp_path: Path) -> None:
    stated = folder(tmp_path, measurement("density", "mean").replace('of = "hot"', 'of = "hott"'))
    told = "measurement density: nothing called 'hott' was found; did you mean 'hot'?"
    with pytest.raises(FolderFault) as caught:
        concluded(stated, given(), hot([(1, 2, 3)]), {})
    assert str(caught.value) == told
    assert not isinstance(caught.value, ValueError)


def test_a_share_says_of_which_values_it_is(tmp_path: Path) -> None:
    tables = [
        measurement("dense", "share", above=700),
        measurement("dense too", "share", above="$limit"),
        measurement("thin", "share", below=-1024.5),
        measurement("high in the other", "share", above=700, over="ct"),
        measurement("hottest", "percentile", percentile=95),
        measurement("hotter", "percentile", percentile=90),
        measurement("mean", "mean"),
        measurement("mean there", "mean", over="ct"),
        '[[parameter]]\nname = "limit"\ndefault = 300.25\nmeaning = "what is dense"\n',
    ]
    inputs = Inputs(
        {
            "pet": made_folders.volume(np.arange(480, dtype=np.float32).reshape(PET_SHAPE), PET_AFFINE),
            "ct": given().given["ct"],
        },
        {"limit": 300.25},
    )
    taken = numbers(concluded(folder(tmp_path, "".join(tables)), inputs, hot([(3, 2, 3), (4, 5, 6)]), {}))
    told = {name: one.concept.meaning for name, one in taken.items()}
    assert told["dense"] == "Share of voxels above 700 HU (dense)"
    assert told["dense too"] == "Share of voxels above 300.25 HU (dense too)"
    assert told["thin"] == "Share of voxels below -1024.5 HU (thin)"
    assert told["hottest"] == "Percentile 95 of the voxel values (hottest)"
    assert told["mean"] == "Attenuation Coefficient"
    assert [taken["dense"].value, taken["dense too"].value] == [0.0, 50.0]
    codes = Counter(
        (one.concept.value, one.derivation and one.derivation.value, one.method and one.method.value)
        for one in taken.values()
    )
    assert max(codes.values()) == 1
    assert all(len(value) <= 16 for one in codes for value in one if value)


def test_what_a_program_finds_is_not_measured_in_a_unit_of_another_kind(tmp_path: Path) -> None:
    inputs = '[[input]]\nas = "volume"\n[[input]]\nas = "image"\nfrom = "study"\n'
    area, volume = (measurement(unit, "volume", unit=unit) for unit in ("mm2", "ml"))
    image = Image(np.zeros((1, 4, 5), np.int16), (0.5, 2.0), "1")
    given = Inputs({"volume": made_folders.volume(np.zeros(PET_SHAPE)), "image": image})
    on_image = Findings((Segment("hot", "Hot", np.ones((1, 4, 5), np.bool_), TISSUE, TISSUE, on="image"),))
    stated = {unit: folder(tmp_path, one, inputs) for unit, one in (("mm2", area), ("ml", volume))}
    assert numbers(concluded(stated["mm2"], given, on_image, {}))["mm2"].value == 20
    assert numbers(concluded(stated["ml"], given, hot([(1, 2, 3)]), {}))["ml"].value == 3 / 1000
    with pytest.raises(FolderFault, match="hot lies on an image, where its size is taken in mm2, not ml"):
        concluded(stated["ml"], given, on_image, {})
    with pytest.raises(FolderFault, match="hot lies on a volume, where its size is taken in ml or mL or cm3"):
        concluded(stated["mm2"], given, hot([(1, 2, 3)]), {})


def test_values_without_a_unit_of_their_own_carry_the_name_of_the_folder(tmp_path: Path) -> None:
    stated = folder(tmp_path, measurement("uptake", "mean") + measurement("x" * 64, "maximum"))
    taken = numbers(concluded(stated, given(), hot([(3, 2, 3)]), {}))
    assert taken["uptake"].concept.meaning == "Voxel value (uptake)"
    assert taken["x" * 64].concept.meaning == "Voxel value"
    assert taken["uptake"].concept.scheme == "99ANODE"


def test_the_kinds_that_are_told_by_their_derivation_have_one(tmp_path: Path) -> None:
    stated = folder(tmp_path, "".join(measurement(kind, kind) for kind in sorted(DERIVED_KINDS)))
    taken = numbers(concluded(stated, given(), hot([(3, 2, 3)]), {}))
    assert len({one.derivation for one in taken.values()} - {None}) == len(DERIVED_KINDS)


def test_the_number_in_the_reason_of_a_check_stands_alone(tmp_path: Path) -> None:
    stated = folder(
        tmp_path,
        measurement("uptake", "mean")
        + '[[check]]\nname = "cold"\nmeasurement = "uptake"\nmaximum = 200\nreason = "it is not so cold"\n'
        '[[check]]\nname = "one"\nquantity = "components"\nof = "hot"\nminimum = 2\nmaximum = 3\n'
        'reason = "it is in one"\n',
    )
    cold, one = concluded(stated, given(), hot([(3, 7, 2)]), {}).checks
    assert cold.reason == "it is not so cold: uptake is 312, expected at most 200"
    assert one.reason == "it is in one: components of hot is 1, expected 2 to 3"
