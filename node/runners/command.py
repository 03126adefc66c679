"""A program in any language or environment as a model: a folder with its job in, a folder with files out.

The job folder (docs/models.md) has ``job.json``, ``in/NAME/`` for each input, and ``out/``. The program
writes its files and, last, ``result.json`` there. Exit status 0 with a whole ``result.json`` is a result;
anything else has failed. The node writes the DICOM, not the program.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.registry import UnusableModel
from models.types import Findings, Image, Input, Inputs, Series, Volume
from node.catalogue.folder_tables import ModelFolder
from node.config.config_values import listed
from node.config.settings import Device
from node.runners import command_result, nifti
from node.runners.command_result import CONTRACT, BrokenResult
from node.runners.conclusions import concluded
from node.runners.hidden_folders import HIDDEN_FOLDERS

#: Of what a program said, so much is said again, and so much is in the reason of a failure.
LAST_BYTES, LAST_LINES, LAST_CHARACTERS = 8192, 4, 400
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


class CommandModel:
    """The model of a folder whose runner is ``command``.

    Raises
    ------
    UnusableModel
        when the program, or its interpreter, is not there or may not be run
    """

    def __init__(self, folder: ModelFolder, *, device: Device, threads: int) -> None:
        self.card = folder.card
        self.needs = tuple(one.need for one in folder.inputs)
        self.parameters = folder.parameters
        self._folder = folder
        self._device = device
        self._threads = threads
        self._refuse_absent_program()

    def predict(self, inputs: Inputs) -> Findings:
        """Run the program on the inputs.

        Raises
        ------
        ValueError
            when the program refuses the input, with its reason
        BrokenResult
            when it fails, or leaves no result or one that is not as agreed

        The end of what the program says is said again on standard error.
        """
        with tempfile.TemporaryDirectory(prefix="job-", ignore_cleanup_errors=True) as work:
            job = Path(work).resolve()
            places = self._lay_out(job, inputs)
            self._run(job, places)
            findings = command_result.read(job / "out", self._folder, inputs)
        return concluded(self._folder, inputs, findings, {})

    def _refuse_absent_program(self) -> None:
        runner = self._folder.runner
        program = self._filled(runner.argv[0], {})
        if os.sep in program:
            fault = _fault_of(Path(program)) or _fault_of_interpreter(Path(program))
        else:
            path = self._filled(runner.environment.get("PATH", _path()), {})
            fault = "" if shutil.which(program, path=path) else f"is on no folder of PATH ({path})"
        if fault:
            raise UnusableModel(f"{self._folder.path}: the program {program} {fault}")

    def _lay_out(self, job: Path, inputs: Inputs) -> dict[str, str]:
        """Write the job; return what the placeholders of ``argv`` stand for."""
        for name in ("in", "out", "home", "tmp"):
            (job / name).mkdir()
        told = []
        volume = ""
        for name, one in inputs.given.items():
            folder = job / "in" / name
            folder.mkdir()
            files = _written(one, folder)
            (folder / "meta.json").write_text(json.dumps(_meta(one), indent=1, allow_nan=False), "utf-8")
            told.append(
                {"name": name, "meta": f"in/{name}/meta.json"}
                | {k: f"in/{name}/{v}" for k, v in files.items()}
            )
            if not volume and "volume" in files:
                volume = str(folder / files["volume"])
        content = {
            "contract": CONTRACT,
            "analysis": {"name": self.card.name, "version": self.card.version},
            "inputs": told,
            "parameters": inputs.parameters,
            "out": "out",
            "threads": self._threads,
            "device": self._device,
        }
        (job / "job.json").write_text(json.dumps(content, indent=1, default=_plain, allow_nan=False), "utf-8")
        return {"job": str(job), "in": str(job / "in"), "out": str(job / "out"), "volume": volume}

    def _run(self, job: Path, places: Mapping[str, str]) -> None:
        runner = self._folder.runner
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self._threads))
        environment = {
            "PATH": _path(),
            "LANG": "C.UTF-8",
            "HOME": str(job / "home"),
            "TMPDIR": str(job / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            # nor is read what somebody left beside the source as its compiled form
            "PYTHONPYCACHEPREFIX": str(job / "tmp" / "compiled"),
            "PYTHONHASHSEED": "0",
            **threads,
            **({"CUDA_VISIBLE_DEVICES": ""} if self._device == "cpu" else {}),
            **{key: self._filled(value, places) for key, value in runner.environment.items()},
        }
        argv = [self._filled(one, places) for one in runner.argv]
        said = job / "said.txt"
        with said.open("wb") as file:
            try:
                ended = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=job / "out",
                    env=environment,
                    check=False,
                )
            except OSError as error:
                raise BrokenResult(f"the program {argv[0]} cannot be started: {error.strerror}") from error
        words = _last_words(said)
        sys.stderr.write(words)
        sys.stderr.flush()
        if ended.returncode:
            raise BrokenResult(f"the program {_how(ended.returncode)}: {_in_a_line(words)}")
        if not (job / "out" / command_result.RESULT).is_file():
            raise BrokenResult(f"the program left no {command_result.RESULT}: {_in_a_line(words)}")

    def _filled(self, text: str, places: Mapping[str, str]) -> str:
        known = {
            "python": sys.executable,
            "folder": str(self._folder.path),
            "threads": str(self._threads),
            "device": self._device,
            **places,
        }
        for name, value in known.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


def _fault_of(program: Path) -> str:
    """Say why a program cannot be run; empty when it can."""
    if os.access(program, os.X_OK):
        return "is a folder" if program.is_dir() else ""
    if program.exists():
        return "may not be run: its file is not executable (chmod +x)"
    if any(Path(os.path.realpath(program)).is_relative_to(one) for one in HIDDEN_FOLDERS):
        hidden = listed([str(one) for one in HIDDEN_FOLDERS])
        return f"is not there for a model, which sees nothing of {hidden}: put it elsewhere"
    return "is not there"


def _fault_of_interpreter(script: Path) -> str:
    """Say why the interpreter that the first line of a script names cannot be run."""
    try:
        with script.open("rb") as file:
            line = file.readline(LAST_BYTES)
    except PermissionError:
        # what may be run need not be readable
        return ""
    words = os.fsdecode(line.removeprefix(b"#!")).split() if line.startswith(b"#!") else []
    fault = _fault_of(Path(words[0])) if words else ""
    return f"begins with #!{words[0]}, which {fault}" if fault else ""


def _written(one: Input, folder: Path) -> dict[str, str]:
    """Write the arrays of an input; return the names of the files by what they are."""
    if isinstance(one, Volume):
        nifti.write(folder / "volume.nii.gz", one.voxels, one.affine)
        return {"volume": "volume.nii.gz"}
    if isinstance(one, Image):
        np.save(folder / "pixels.npy", one.pixels, allow_pickle=False)
        files = {"pixels": "pixels.npy"}
        if _is_picture(one.pixels):
            from PIL import Image as Picture

            Picture.fromarray(np.asarray(one.pixels[0])).save(folder / "image.png")
            files["image"] = "image.png"
        return files
    for instance in one.instances:
        if instance.pixels is not None:
            np.save(folder / f"{instance.number:05}.npy", instance.pixels, allow_pickle=False)
    return {}


def _is_picture(pixels: NDArray[Any]) -> bool:
    """Whether a PNG can hold it as it is: one frame, in bytes."""
    return len(pixels) == 1 and pixels.dtype == np.uint8


def _meta(one: Input) -> dict[str, Any]:
    if isinstance(one, Volume):
        return {
            "kind": "volume",
            "unit": one.unit,
            "spacing_mm": list(one.spacing_mm),
            "affine_lps": one.affine.tolist(),
            "shape": list(one.voxels.shape),
            "header": _plain(one.header),
        }
    if isinstance(one, Image):
        return {
            "kind": "image",
            "unit": one.unit,
            "spacing_mm": None if one.spacing_mm is None else list(one.spacing_mm),
            "shape": list(one.pixels.shape),
            "header": _plain(one.header),
        }
    assert isinstance(one, Series)
    return {
        "kind": "series",
        "instances": [
            {
                "number": each.number,
                "pixels": None if each.pixels is None else f"{each.number:05}.npy",
                "pixels_error": each.pixels_error,
                "header": _plain(each.header),
            }
            for each in one.instances
        ],
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a number that JSON has not becomes text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and value - value != 0 else value


def _last_words(said: Path) -> str:
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - LAST_BYTES))
        return file.read().decode("utf-8", "replace")


def _in_a_line(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return " | ".join(lines[-LAST_LINES:])[-LAST_CHARACTERS:] or "it said nothing"


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"was ended by signal {-status} ({signal.strsignal(-status)})"
