"""Registrations take a point of one input to where it is in the other, read by the standard alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.types import Findings, Transform
from node.results.build import Source
from tests.support.made_findings import all_built, made_source, read, source_of
from tests.support.made_series import LYING, numbered, places_mm

BEFORE = "1.2.9.0"


def turned(degrees: float, shift: tuple[float, float, float]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    angle = np.deg2rad(degrees)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


MATRIX = turned(30, (5, -7, 11))


def two_studies(**of_prior: Any) -> Source:
    facts = {
        "StudyInstanceUID": "1.2.9",
        "SeriesInstanceUID": "1.2.9.4",
        "FrameOfReferenceUID": BEFORE,
    } | of_prior
    prior = made_source(3, (0, 0, 3), **facts)
    for index, one in enumerate(prior.data_sets):
        one.SOPInstanceUID = f"1.2.9.4.{index + 1}"
    return replace(made_source(4), name="now", others={"before": replace(prior, is_prior=True)})


def transform(**changes: Any) -> Transform:
    facts: dict[str, Any] = {
        "name": "follow-up", "label": "Follow-up", "moving": "before", "fixed": "now", "matrix": MATRIX,
    }  # fmt: skip
    return Transform(**(facts | changes))


def registrations(source: Source, *transforms: Transform) -> list[Dataset]:
    return [read(one) for one in all_built(Findings(transforms=transforms), source, kinds=("reg",))]


def by_matrix(made: Dataset, item: Dataset, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """A point of the item's images in the registered system (PS3.3 section C.20.2.1.1)."""
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.1"
    for matrix in item.MatrixRegistrationSequence[0].MatrixSequence:
        values = np.array(matrix.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
        point = (values @ (*point, 1))[:3]
    return point


def by_grid(item: Dataset, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """A point at a node of the grid, of the registered system, in the source (PS3.3 section C.20.3.1.1)."""
    [grid] = item.DeformableRegistrationGridSequence
    [pre] = item.PreDeformationMatrixRegistrationSequence
    [post] = item.PostDeformationMatrixRegistrationSequence
    axes = np.array(grid.ImageOrientationPatient, float).reshape(2, 3)
    axes = np.vstack([axes, np.cross(axes[0], axes[1])])
    offset = axes @ (point - np.array(grid.ImagePositionPatient, float))
    x, y, z = np.rint(offset / np.array(grid.GridResolution)).astype(int)
    assert np.abs(offset - np.array([x, y, z]) * grid.GridResolution).max() < 1e-6
    columns, rows, slices = grid.GridDimensions
    vectors = np.frombuffer(grid.VectorGridData, "<f4").reshape(slices, rows, columns, 3)
    moved = (np.array(pre.FrameOfReferenceTransformationMatrix, float).reshape(4, 4) @ (*point, 1))[:3]
    moved = moved + vectors[z, y, x]
    matrix = np.array(post.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
    return np.asarray((matrix @ (*moved, 1))[:3])


@pytest.mark.checklist("V1")
def test_a_matrix_takes_points_of_the_moving_input_to_the_fixed_one() -> None:
    [made] = registrations(two_studies(), transform())
    fixed, moving = made.RegistrationSequence
    assert made.FrameOfReferenceUID == fixed.FrameOfReferenceUID == "1.2.3.4.0"
    assert moving.FrameOfReferenceUID == BEFORE
    point = np.array([12.5, -3.0, 40.0])
    expected = MATRIX[:3, :3] @ point + (5, -7, 11)
    assert np.abs(by_matrix(made, moving, point) - expected).max() < 1e-9
    assert np.array_equal(by_matrix(made, fixed, expected), expected)
    assert [one.ReferencedSOPInstanceUID for one in moving.ReferencedImageSequence] == [
        f"1.2.9.4.{number}" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("name", ["oblique", "gantry tilt", "all flipped", "multi-frame"])
@pytest.mark.checklist("V1")
def test_a_voxel_that_a_model_matched_lies_where_its_images_have_it(name: str) -> None:
    instances = numbered(LYING[name]())
    fixed = source_of(instances)
    prior = two_studies().others["before"]
    source = replace(fixed, name="now", others={"before": prior})
    assert fixed.volume is not None
    assert prior.volume is not None
    [voxel] = np.argwhere(fixed.volume.voxels == 41)
    # What a model does: voxels by the affines, then the matrix that matches them.
    in_moving = (prior.volume.affine @ (1, 2, 3, 1))[:3]
    matrix = MATRIX.copy()
    matrix[:3, 3] = (fixed.volume.affine @ (*voxel, 1))[:3] - matrix[:3, :3] @ in_moving
    [made] = registrations(source, transform(matrix=matrix))
    of_moving = prior.data_sets[1]
    seen = np.array(of_moving.ImagePositionPatient, float) + np.array([0.5 * 3, 0.8 * 2, 0])
    assert np.abs(by_matrix(made, made.RegistrationSequence[1], seen) - places_mm(instances)[41]).max() < 1e-9


@pytest.mark.checklist("V1")
def test_the_images_of_both_studies_are_named_by_study_and_series() -> None:
    [made] = registrations(two_studies(), transform())
    [here] = made.ReferencedSeriesSequence
    assert (here.SeriesInstanceUID, len(here.ReferencedInstanceSequence)) == ("1.2.3.4", 4)
    [other] = made.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == "1.2.9"
    assert len(other.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 3
    assert made.StudyInstanceUID == "1.2.3"


def test_inputs_in_one_frame_of_reference_are_told_apart_by_their_images() -> None:
    source = two_studies(StudyInstanceUID="1.2.3", FrameOfReferenceUID="1.2.3.4.0")
    [made] = registrations(source, transform())
    assert all("FrameOfReferenceUID" not in item for item in made.RegistrationSequence)
    named = [
        {image.ReferencedSOPInstanceUID for image in item.ReferencedImageSequence}
        for item in made.RegistrationSequence
    ]
    assert not named[0] & named[1]
    assert len(made.ReferencedSeriesSequence) == 2


@pytest.mark.parametrize(
    ("matrix", "kind", "written"),
    [
        (MATRIX, "RIGID", "RIGID"),
        (MATRIX, "AFFINE", "AFFINE"),
        (np.diag([2.0, 2.0, 1.0, 1.0]), "RIGID", "RIGID_SCALE"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "RIGID", "AFFINE"),
    ],
)
def test_a_matrix_is_never_said_to_be_less_than_it_is(
    matrix: NDArray[np.float64], kind: str, written: str
) -> None:
    [made] = registrations(two_studies(), transform(matrix=matrix, kind=kind))
    [item] = made.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence
    assert item.FrameOfReferenceTransformationMatrixType == written


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]), np.diag([1.0, 1, 1, 2])])
def test_what_is_no_transform_is_refused_by_name(matrix: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="matrix of follow-up"):
        registrations(two_studies(), transform(matrix=matrix))


# --- displacements -----------------------------------------------------------


GRIDS = {
    "right-handed": np.array([[0, 0, 4, -8], [0, 5, 0, 2], [6, 0, 0, 20], [0, 0, 0, 1]], float),
    "from head to feet": np.array([[0, 0, 4, -8], [0, 5, 0, 2], [-6, 0, 0, 20], [0, 0, 0, 1]], float),
    "sagittal": np.array([[3, 0, 0, 1], [0, 0, 4, 2], [0, -5, 0, 3], [0, 0, 0, 1]], float),
    "oblique": turned(40, (1, 2, 3)) @ np.array([[0, 0, 4, 0], [0, 5, 0, 0], [6, 0, 0, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.checklist("V2")
def test_displacements_take_points_of_the_fixed_input_to_the_moving_one_as_the_standard_reads_them(
    name: str,
) -> None:
    affine = GRIDS[name]
    field = np.random.default_rng(2).normal(size=(3, 4, 5, 3)).astype(np.float32)
    [made] = registrations(two_studies(), transform(displacements=field, displacement_affine=affine))
    item = made.DeformableRegistrationSequence[1]
    assert made.FrameOfReferenceUID == "1.2.3.4.0"
    assert item.SourceFrameOfReferenceUID == BEFORE
    inverse = np.linalg.inv(MATRIX)
    for index in np.ndindex(3, 4, 5):
        point = (affine @ (*index, 1))[:3]
        expected = (inverse @ (*(point + field[index]), 1))[:3]
        assert np.abs(by_grid(item, point) - expected).max() < 1e-5


@pytest.mark.checklist("V2")
def test_no_displacement_is_the_inverse_of_the_matrix() -> None:
    field = np.zeros((2, 2, 2, 3), np.float32)
    deformed, matrix = registrations(
        two_studies(),
        transform(displacements=field, displacement_affine=GRIDS["right-handed"]),
        transform(name="other"),
    )
    point = GRIDS["right-handed"][:3, 3]
    back = by_grid(deformed.DeformableRegistrationSequence[1], point)
    assert np.abs(by_matrix(matrix, matrix.RegistrationSequence[1], back) - point).max() < 1e-9
    assert deformed.SeriesInstanceUID == matrix.SeriesInstanceUID
    assert [deformed.InstanceNumber, matrix.InstanceNumber] == [1, 2]


def test_a_sheared_grid_is_refused_with_what_to_do() -> None:
    affine = GRIDS["right-handed"].copy()
    affine[1, 0] = 1.0
    field = np.zeros((2, 2, 2, 3), np.float32)
    with pytest.raises(ValueError, match="follow-up is sheared"):
        registrations(two_studies(), transform(displacements=field, displacement_affine=affine))


def test_registrations_to_two_frames_of_reference_are_two_series() -> None:
    there, back = registrations(
        two_studies(), transform(), transform(name="back", moving="now", fixed="before")
    )
    assert there.SeriesInstanceUID != back.SeriesInstanceUID
    assert (there.FrameOfReferenceUID, back.FrameOfReferenceUID) == ("1.2.3.4.0", BEFORE)
