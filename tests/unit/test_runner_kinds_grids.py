"""What a network says of its array is said of the very voxels of the series, however these lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from models.types import Image
from node.catalogue.folder_tables import Sliding
from node.runners import nifti
from node.runners.placement import onto, place, rescale, turns
from node.runners.windows import slide, windows
from tests.support import made_folders
from tests.support.made_folders import LABEL

SHAPE = (5, 7, 9)


def rotated(degrees: float) -> NDArray[np.float64]:
    """Return an axial grid with steps of 3, 1 and 1.5 mm, turned about two axes."""
    angle = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    axial = np.array([[0, 0, 1.5], [0, 1.0, 0], [3.0, 0, 0]])
    affine[:3, :3] = about_x @ about_z @ axial
    affine[:3, 3] = (-11, 23, -37)
    return affine


def flipped(*axes: int) -> NDArray[np.float64]:
    affine = rotated(0)
    affine[:3, list(axes)] *= -1
    return affine


def tilted() -> NDArray[np.float64]:
    affine = rotated(0)
    affine[:3, 0] = (0, -0.8, 2.9)
    return affine


GRIDS = {
    "axial": rotated(0),
    "oblique": rotated(25),
    "slices flipped": flipped(0),
    "rows flipped": flipped(1),
    "columns flipped": flipped(2),
    "all flipped": flipped(0, 1, 2),
    "gantry tilted": tilted(),
    "sagittal": rotated(0)[:, [2, 0, 1, 3]],
    "coronal": rotated(0)[:, [1, 0, 2, 3]],
}
every_grid = pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS.keys())


def marked() -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return voxels with three marks, none of which another orientation would put on another."""
    mask = np.zeros(SHAPE, bool)
    for at in ((0, 0, 0), (1, 5, 2), (4, 6, 7)):
        mask[at] = True
    return np.where(mask, 1000, 0).astype(np.int16), mask


def folder(path: Path, about_input: str = "", about_output: str = "") -> Path:
    made_folders.identity(path / "model.onnx")
    return made_folders.folder(
        path,
        f'[[input]]\nas = "volume"\nnormalise = {{ window = [0, 1000] }}\n{about_input}\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{about_output}\n{LABEL}\n',
    )


@every_grid
@pytest.mark.parametrize("orientation", ["as is", "RAS", "LPS", "SAR", "IPL"])
def test_marked_voxels_come_back_where_they_were(
    tmp_path: Path, affine: NDArray[np.float64], orientation: str
) -> None:
    voxels, mask = marked()
    about = f'orientation = "{orientation}"\nsize = [14, 14, 14]\ndivisible_by = 4'
    found = made_folders.predict(folder(tmp_path, about), made_folders.volume(voxels, affine))
    assert np.array_equal(found.segments[0].mask, mask)


@every_grid
def test_the_array_leads_where_the_orientation_says(affine: NDArray[np.float64]) -> None:
    order, flips = turns(affine, "RAS")
    voxels = np.zeros(SHAPE)
    placed = place(SHAPE, affine, orientation="RAS")
    turned = placed.turned(voxels)
    for axis, (coordinate, sign) in enumerate([(0, -1), (1, -1), (2, 1)]):
        step = np.zeros(4)
        step[order[axis]] = -1 if flips[axis] else 1
        along = affine @ step
        assert along[coordinate] * sign > 0.5 * np.linalg.norm(along)
        assert turned.shape[axis] == SHAPE[order[axis]]


@every_grid
def test_a_point_of_the_array_is_the_same_place_of_the_patient(affine: NDArray[np.float64]) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    placed = place(
        SHAPE,
        affine,
        orientation="LPS",
        spacing_mm=(2.0, 2.0, 2.0),
        source_spacing_mm=lengths,
        size=(6, 6, 6),
    )
    rng = np.random.default_rng(3)
    smooth = rescale(rng.normal(size=(2, 3, 2)), SHAPE, "linear")
    array = placed.fitted(placed.resampled(placed.turned(smooth), "linear"), 0.0)
    inside = np.argwhere(np.ones(placed.shape))
    back = placed.points_back(inside.astype(np.float64))
    seen = ((back >= 0) & (back <= np.array(SHAPE) - 1)).all(axis=1)
    assert seen.sum() > 50
    from scipy import ndimage

    expected = ndimage.map_coordinates(smooth, back[seen].T, order=1)
    assert np.allclose(array[tuple(inside[seen].T)], expected, atol=1e-4)


@every_grid
def test_a_large_region_survives_resampling(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    shape = (20, 36, 30)
    at = np.stack(np.meshgrid(*(np.arange(one) for one in shape), indexing="ij"), axis=-1)
    mask = (((at - (9, 20, 12)) / (6, 11, 8)) ** 2).sum(axis=-1) <= 1
    voxels = np.where(mask, 1000, 0).astype(np.int16)
    about = 'orientation = "RAS"\nspacing_mm = [2.0, 2.0, 2.0]\nsliding = { roi = [16, 16, 16] }'
    found = made_folders.predict(folder(tmp_path, about), made_folders.volume(voxels, affine))
    got = found.segments[0].mask
    assert 2 * np.count_nonzero(got & mask) / (got.sum() + mask.sum()) > 0.93
    centre = np.argwhere(got).mean(axis=0) - np.argwhere(mask).mean(axis=0)
    assert np.abs(centre).max() < 0.2


def test_what_was_cropped_away_belongs_to_no_segment(tmp_path: Path) -> None:
    voxels = np.full(SHAPE, 1000, np.int16)
    found = made_folders.predict(folder(tmp_path, "size = [3, 3, 3]"), made_folders.volume(voxels))
    mask = found.segments[0].mask
    assert mask.sum() == 27
    assert mask[1:4, 2:5, 3:6].all()


def test_slices_are_given_one_by_one_to_a_network_of_images(tmp_path: Path) -> None:
    made_folders.identity(tmp_path / "model.onnx", (1, "h", "w", 1))
    made_folders.folder(
        tmp_path,
        '[[input]]\nas = "volume"\nlayout = "NHWC"\nresize = [7, 9]\nnormalise = { window = [0, 1000] }\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n',
    )
    voxels, mask = marked()
    assert np.array_equal(made_folders.predict(tmp_path, made_folders.volume(voxels)).segments[0].mask, mask)


def test_points_and_boxes_come_back_to_their_voxels(tmp_path: Path) -> None:
    boxes = np.float32([[1, 2, 3, 4, 5, 6], [0, 0, 0, 2, 2, 2]])
    scores = np.float32([0.9, 0.2])
    made_folders.network(
        tmp_path / "model.onnx",
        [
            helper.make_node("ReduceMax", ["given"], ["top"], keepdims=0),
            helper.make_node("Mul", ["top", "places"], ["boxes"]),
            helper.make_node("Identity", ["certain"], ["scores"]),
        ],
        inputs={"given": ("n", 1, "d", "h", "w")},
        outputs={"boxes": (2, 6), "scores": (2,)},
        constants={"places": boxes, "certain": scores},
    )
    made_folders.folder(
        tmp_path,
        '[[input]]\nas = "volume"\norientation = "RAS"\nnormalise = { window = [0, 1000] }\n'
        '[[output]]\nname = "found"\ntensor = "boxes"\nscores = "scores"\nas = "boxes"\n'
        f'coordinates = "DHW"\norigin = "corner"\nthreshold = 0.5\n{LABEL}\n',
    )
    voxels, _ = marked()
    [mark] = made_folders.predict(tmp_path, made_folders.volume(voxels)).marks
    assert mark.probability == pytest.approx(0.9)
    # the array runs to the right, to the front and up: columns and rows of an axial series backwards
    low, high = mark.points.min(axis=0), mark.points.max(axis=0)
    assert low.tolist() == [2.5, 7 - 5 - 0.5, 9 - 4 - 0.5]
    assert high.tolist() == [4.5, 7 - 2 - 0.5, 9 - 1 - 0.5]


def test_an_image_in_colour_keeps_the_order_of_its_samples(tmp_path: Path) -> None:
    made_folders.network(
        tmp_path / "model.onnx",
        [helper.make_node("ReduceMean", ["given"], ["mean"], axes=[2, 3], keepdims=0)],
        inputs={"given": (1, 3, "h", "w")},
        outputs={"mean": (1, 3)},
    )
    outputs = "".join(
        f'[[output]]\nname = "{name}"\nas = "regression"\nelement = {number}\nunit = "1"\n'
        f'concept = {{ value = "{name}", scheme = "99T", meaning = "{name}" }}\n'
        for number, name in enumerate(("blue", "green", "red"))
    )
    made_folders.folder(tmp_path, f'[[input]]\nas = "image"\nchannels = "bgr"\n{outputs}')
    pixels = np.zeros((1, 4, 6, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 200, 100, 50
    numbers = made_folders.predict(tmp_path, Image(pixels, None, "1")).measurements
    assert {one.name: one.value for one in numbers} == {"red": 200, "green": 100, "blue": 50}


def test_a_further_volume_is_put_on_the_grid_of_the_first(tmp_path: Path) -> None:
    made_folders.network(
        tmp_path / "model.onnx",
        [
            helper.make_node("Slice", ["given", "one", "two", "axis"], ["said"]),
        ],
        inputs={"given": ("n", 2, "d", "h", "w")},
        outputs={"said": None},
        constants={"one": np.int64([1]), "two": np.int64([2]), "axis": np.int64([1])},
    )
    made_folders.folder(
        tmp_path,
        '[[input]]\nname = "ct"\ntensor = "given"\n'
        '[[input]]\nname = "pet"\ntensor = "given"\nfrom = "study"\noptional = true\n'
        f'[[output]]\nname = "said"\nas = "segmentation"\n{LABEL}\n',
    )
    voxels, mask = marked()
    other = made_folders.volume((voxels[::-1, :, ::-1] > 0).astype(np.float32), _backwards())
    given = {"ct": made_folders.volume(np.zeros(SHAPE, np.int16)), "pet": other}
    assert np.array_equal(made_folders.predict(tmp_path, given).segments[0].mask, mask)
    del given["pet"]
    assert not made_folders.predict(tmp_path, given).segments[0].mask.any()


def _backwards() -> NDArray[np.float64]:
    """Return the grid of ``made_folders.volume``, seen from its last slice and column."""
    affine = made_folders.volume(np.zeros(SHAPE)).affine.copy()
    last = affine @ [SHAPE[0] - 1, 0, SHAPE[2] - 1, 1]
    affine[:3, [0, 2]] *= -1
    affine[:3, 3] = last[:3]
    return affine


# --- the parts ---------------------------------------------------------------


def test_windows_cover_all_and_join_without_a_seam() -> None:
    sliding = Sliding((4, 5, 3), 0.25)
    covered = np.zeros((9, 11, 3), int)
    for corner in windows(covered.shape, sliding):
        covered[tuple(slice(a, a + b) for a, b in zip(corner, sliding.roi, strict=True))] += 1
    assert covered.min() >= 1
    array = np.random.default_rng(1).normal(size=(1, 1, 9, 11, 3)).astype(np.float32)
    joined = slide({"x": array}, (2, 3, 4), sliding, lambda parts: {"y": parts["x"]})
    assert np.allclose(joined["y"], array, atol=1e-6)


@every_grid
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_volume_comes_back_from_nifti_as_it_was(
    tmp_path: Path, affine: NDArray[np.float64], name: str
) -> None:
    voxels = np.random.default_rng(2).integers(-1000, 3000, SHAPE).astype(np.int16)
    nifti.write(tmp_path / name, voxels, affine)
    read, there = nifti.read(tmp_path / name)
    assert np.array_equal(read, voxels)
    assert np.allclose(there, affine, atol=1e-4)


def test_other_software_reads_our_nifti_and_we_read_theirs(tmp_path: Path) -> None:
    import SimpleITK

    voxels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    affine = GRIDS["oblique"]
    nifti.write(tmp_path / "ours.nii.gz", voxels, affine)
    image = SimpleITK.ReadImage(str(tmp_path / "ours.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), voxels)
    there = image.TransformIndexToPhysicalPoint((8, 1, 3))
    assert np.allclose(there, (affine @ [3, 1, 8, 1])[:3], atol=1e-3)
    SimpleITK.WriteImage(image, str(tmp_path / "theirs.nii.gz"))
    read, grid = nifti.read(tmp_path / "theirs.nii.gz")
    assert np.array_equal(read, voxels)
    assert np.allclose(grid, affine, atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_what_is_no_nifti_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        nifti.read(tmp_path / name)


def test_a_nifti_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    nifti.write(tmp_path / "v.nii", np.zeros(SHAPE, np.int16), GRIDS["axial"])
    whole = (tmp_path / "v.nii").read_bytes()
    (tmp_path / "v.nii").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cut short"):
        nifti.read(tmp_path / "v.nii")


@every_grid
def test_a_map_on_a_turned_grid_is_taken_without_interpolation(affine: NDArray[np.float64]) -> None:
    voxels, mask = marked()
    turned = np.flip(voxels.transpose(2, 0, 1), 0)
    there = affine[:, [2, 0, 1, 3]].copy()
    there[:3, 3] += there[:3, 0] * (SHAPE[2] - 1)
    there[:3, 0] *= -1
    assert np.array_equal(onto(turned, there, SHAPE, affine, "nearest") != 0, mask)
