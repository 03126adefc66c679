"""Bundles of the MONAI Model Zoo's shape, offline: the bundle's own pre- and post-processing are run.

A bundle says how an image is loaded, prepared, predicted on and brought back
(https://docs.monai.io/en/stable/bundle_intro.html). Here it is given the volume as a NIfTI file, nothing
of it is saved, and what comes back on another grid is brought onto that of the volume. A bundle is code:
its configuration can import and call anything, so each of its files is pinned.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.registry import UnusableModel
from models.types import Findings, Inputs, Segment, Volume
from node.catalogue.folder_tables import LabelTable, ModelFolder, OutputTable
from node.catalogue.model_folder import private_code
from node.config.settings import Device
from node.runners import nifti
from node.runners.conclusions import concluded
from node.runners.failures import FolderFault
from node.runners.frames import refuse_apart
from node.runners.placement import onto
from node.runners.python_file import import_from
from node.runners.regions import after
from node.runners.torch_network import prepared_device

#: What interpolation adds to whole numbers by rounding.
_NEARLY = 1e-3
_COLOURS = ((255, 196, 0), (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0))


class BundleModel:
    """The model of a folder whose runner is ``monai_bundle``.

    Raises
    ------
    UnusableModel
        when MONAI is not installed, or the bundle lacks what it needs
    """

    def __init__(self, folder: ModelFolder, *, device: Device, threads: int) -> None:
        self.card = folder.card
        self.needs = tuple(one.need for one in folder.inputs)
        self.parameters = folder.parameters
        self._folder = folder
        self._device = prepared_device(device, threads, folder.path)
        self._labels = _labels(folder)
        import_from(folder.path)
        with _quietly():
            self._load()

    def predict(self, inputs: Inputs) -> Findings:
        """Return the segments that the bundle finds in the volumes."""
        import torch

        bundle = self._folder.runner.bundle
        primary = inputs.volume
        with tempfile.TemporaryDirectory(prefix="bundle-") as work, _quietly(), torch.inference_mode():
            files = _written(inputs, [one.need.name for one in self._folder.inputs], Path(work))
            torch.manual_seed(0)
            data = self._preprocessing({bundle.image_key: files[0] if len(files) == 1 else files})
            image = data[bundle.image_key].unsqueeze(0).to(self._device)
            said = self._inferer(image, self._network)
            if isinstance(said, list | tuple):
                # networks with deep supervision say the finest first
                said = said[0]
            data[bundle.prediction_key] = _placed(said[0], data[bundle.image_key])
            found = self._postprocessing(data)[bundle.prediction_key]
            scores, affine = _plain(found, nifti.ras_of(primary.affine))
        return self._findings(inputs, primary, scores, affine)

    def _load(self) -> None:
        bundle, root = self._folder.runner.bundle, self._folder.path
        try:
            from monai.bundle import ConfigParser
            from monai.inferers import SimpleInferer
        except ImportError as error:
            raise UnusableModel(
                f"{root} needs MONAI: install anode with the extra 'monai' ({error})"
            ) from error
        parser = ConfigParser()
        parser.read_config([root / one for one in bundle.config])
        parser.read_meta(root / bundle.metadata)
        nowhere = tempfile.gettempdir()
        given = {
            "bundle_root": str(root),
            "device": self._device,
            "output_dir": nowhere,
            "dataset_dir": nowhere,
        }
        for key, value in {**given, **bundle.overrides}.items():
            parser.set(value, key)
        for key in (bundle.network, bundle.preprocessing):
            if parser.get(key) is None:
                raise UnusableModel(
                    f"{root / bundle.config[0]}: there is no '{key}'; [runner.bundle] can name it"
                )
        if parser.get(bundle.postprocessing) is not None:
            parser.set(_without_saving(parser.get(bundle.postprocessing)), bundle.postprocessing)
        try:
            parser.parse(True)
            self._preprocessing = parser.get_parsed_content(bundle.preprocessing)
            self._network = self._with_weights(parser.get_parsed_content(bundle.network))
            self._inferer = SimpleInferer()
            if parser.get(bundle.inferer) is not None:
                self._inferer = parser.get_parsed_content(bundle.inferer)
            if parser.get(bundle.postprocessing) is not None:
                self._postprocessing = parser.get_parsed_content(bundle.postprocessing)
            else:
                self._postprocessing = self._inverse()
        except (
            AttributeError,
            ImportError,
            LookupError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise UnusableModel(f"{root} cannot be loaded: {' '.join(str(error).split())[:400]}") from error

    def _with_weights(self, network: Any) -> Any:
        import torch

        path = self._folder.path / self._folder.runner.bundle.weights
        if path.suffix == ".ts":
            from node.runners.torch_network import scripted

            return scripted(path).to(self._device)
        try:
            # tensors alone: a pickle of anything else is refused
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            raise UnusableModel(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        except _unpickling_error() as error:
            raise UnusableModel(
                f"{path} holds more than tensors, and what else a pickle holds is never loaded; save "
                "network.state_dict()"
            ) from error
        for key in ("model", "state_dict", "network"):
            if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
                state = state[key]
        network.load_state_dict(state)
        return network.to(self._device).eval()

    def _inverse(self) -> Any:
        """Return what undoes the preprocessing, for a bundle that does not say."""
        from monai.transforms import Invertd

        bundle = self._folder.runner.bundle
        return Invertd(
            keys=bundle.prediction_key,
            transform=self._preprocessing,
            orig_keys=bundle.image_key,
            nearest_interp=False,
            to_tensor=True,
        )

    # --- what was found ------------------------------------------------------

    def _findings(
        self,
        inputs: Inputs,
        primary: Volume,
        scores: NDArray[Any],
        affine: NDArray[np.float64],
    ) -> Findings:
        table, labels = self._labels
        if not np.isfinite(scores).all():
            raise FolderFault("the bundle's prediction has values that are no numbers")
        masks = _masks(scores, labels)
        segments = []
        for label in labels:
            mask = masks[label.index]
            mask = onto(mask.view(np.uint8), affine, primary.voxels.shape, primary.affine, "nearest") != 0
            if table is not None:
                mask = after(mask, table.post, primary.voxel_ml, inputs.parameters)
            segments.append(
                Segment(
                    label.name,
                    label.label,
                    np.ascontiguousarray(mask),
                    label.category,
                    label.type,
                    label.laterality,
                    colour=label.colour,
                )
            )
        return concluded(self._folder, inputs, Findings(segments=tuple(segments)), {})


def _masks(scores: NDArray[Any], labels: tuple[LabelTable, ...]) -> dict[int, NDArray[np.bool_]]:
    """Return a mask for each label, of (channel, slice, row, column).

    One channel is a map of labels, or a mask where there is one label of index 0 or 1 and the values are 0
    to 1. Of several, each is the mask of its label where the values are 0 to 1; else the highest counts.
    """
    if scores.shape[0] == 1:
        return _of_one_channel(scores[0], labels)
    worst = max(label.index for label in labels)
    if worst >= scores.shape[0]:
        raise FolderFault(f"there is no channel {worst}, the prediction has {scores.shape[0]}")
    if scores.min() >= 0 and scores.max() <= 1:
        return {label.index: scores[label.index] >= 0.5 for label in labels}
    winners = scores.argmax(axis=0)
    return {label.index: winners == label.index for label in labels}


def _of_one_channel(values: NDArray[Any], labels: tuple[LabelTable, ...]) -> dict[int, NDArray[np.bool_]]:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    alone = labels[0].index if len(labels) == 1 else None
    if alone in (0, 1) and low >= -_NEARLY and high <= 1 + _NEARLY:
        return {alone: values > 0.5}
    told = f"the bundle's prediction is {low:g} to {high:g}"
    if alone == 0:
        raise FolderFault(f"{told}, so its one channel is no mask; the post-processing has to make one")
    whole = np.rint(values)
    if values.size and np.abs(values - whole).max() > _NEARLY:
        raise FolderFault(
            f"{told} with values between whole numbers, so it is no map of labels; an activation or a "
            "discretisation is missing from its post-processing"
        )
    return {label.index: whole == label.index for label in labels}


def _placed(said: Any, image: Any) -> Any:
    """Return a prediction that knows where it lies: as the image does, where the network has not told."""
    from monai.data import MetaTensor

    is_told = isinstance(said, MetaTensor) and bool((said.affine == image.affine).all())
    if is_told or said.shape[1:] != image.shape[1:]:
        return said
    plain = said.as_tensor() if isinstance(said, MetaTensor) else said
    return MetaTensor(plain, affine=image.affine, meta=image.meta)


def _plain(found: Any, source: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return a prediction as (channel, slice, row, column), and its affine as that of ``Volume``.

    ``source`` is the affine of the file that the bundle was given.
    """
    affine = getattr(found, "affine", None)
    ras = None if affine is None else np.asarray(affine.detach().cpu().numpy(), np.float64)
    if ras is None or (np.array_equal(ras, np.eye(4)) and not np.allclose(source, np.eye(4))):
        raise FolderFault(
            "the bundle's prediction does not say where it lies; its post-processing has to keep that"
        )
    array = np.asarray((found.as_tensor() if hasattr(found, "as_tensor") else found).detach().cpu().numpy())
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4:
        raise FolderFault(f"the bundle's prediction is {array.shape}, expected (channel, x, y, z)")
    return array.transpose(0, 3, 2, 1), nifti.lps_of(ras)


def _written(inputs: Inputs, names: list[str], work: Path) -> list[str]:
    """Write the inputs as NIfTI files, in the order of the needs."""
    paths = []
    for number, name in enumerate(names):
        one = inputs.given.get(name)
        if one is None:
            continue
        if not isinstance(one, Volume):
            raise ValueError(f"a bundle is given volumes, and '{name}' is none")
        if number:
            refuse_apart("inputs", (name, one), (names[0], inputs.volume))
        path = work / f"{number}.nii.gz"
        nifti.write(path, one.voxels, one.affine)
        paths.append(str(path))
    return paths


def _without_saving(config: Any) -> Any:
    """Return a configuration without the transforms that write files."""
    if isinstance(config, list):
        return [_without_saving(one) for one in config if not _saves(one)]
    if isinstance(config, dict):
        return {key: _without_saving(one) for key, one in config.items()}
    return config


def _saves(config: Any) -> bool:
    target = config.get("_target_", "") if isinstance(config, dict) else ""
    return isinstance(target, str) and target.rpartition(".")[2].startswith("SaveImage")


def _labels(folder: ModelFolder) -> tuple[OutputTable | None, tuple[LabelTable, ...]]:
    """Return what the channels are: as ``analysis.toml`` says, else as the bundle's metadata do."""
    table = next((one for one in folder.outputs if one.labels), None)
    if table is not None:
        return table, table.labels
    bundle = folder.runner.bundle
    path = folder.path / bundle.metadata
    try:
        outputs = json.loads(path.read_text(encoding="utf-8"))["network_data_format"]["outputs"]
        named = outputs.get(bundle.prediction_key) or next(iter(outputs.values()))
        channels = {int(key): str(value) for key, value in named["channel_def"].items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError, StopIteration) as error:
        raise UnusableModel(
            f"{path}: it does not say what the channels are (channel_def); an [[output]] with labels can"
        ) from error
    found: list[LabelTable] = []
    for index, name in sorted(channels.items()):
        if name.casefold() == "background":
            continue
        plain = "-".join(name.split())
        colour = _COLOURS[len(found) % len(_COLOURS)]
        found.append(LabelTable(index, plain, name.capitalize(), private_code(plain, name), colour=colour))
    if not found:
        raise UnusableModel(f"{path}: every channel is background; an [[output]] with labels can say more")
    return None, tuple(found)


def _unpickling_error() -> type[Exception]:
    import pickle

    return pickle.UnpicklingError


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide what MONAI says of its own use of its dependencies."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield
