"""Models for tests, installed as another package would install them: by entry point."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = '''
import os, subprocess, sys, time
import numpy as np
from models.base import NEEDS_SERIES, NEEDS_VOLUME, ModelCard, Need, Parameter
from models.types import Check, Code, Evaluation, Findings, Measurement, Segment

CODE = Code("1", "99TEST", "Test")
UNIT = Code("mm", "UCUM", "millimeter")
CARD = ModelCard(name="brightness", version="1", title="A model for tests", intended_use="tests",
                 limits="all", inputs="any", outputs="mean", evidence="none", licence="none", family=CODE)


def card(name):
    return ModelCard(**{**CARD.__dict__, "name": name})


class Brightness:
    card, needs, parameters = CARD, NEEDS_VOLUME, ()

    def predict(self, inputs):
        voxels = inputs.volume.voxels
        mean = Measurement(CODE, float(voxels.mean()), UNIT, derivation=CODE, method=CODE)
        mask = np.asarray(voxels > voxels.mean())
        bright = Segment("bright", "Bright", mask, CODE, CODE, CODE, (mean,), (1, 2, 3))
        return Findings((bright,), (mean,), (Evaluation(CODE, CODE), Evaluation(CODE, "words")),
                        (Check("one", True), Check("two", False, "why")), "done")


class Counter:
    """Reports how it runs."""

    card, needs, parameters = card("counter"), NEEDS_SERIES, ()

    def predict(self, inputs):
        instances = inputs.series.instances
        facts = {"nice": os.nice(0), "omp": os.environ["OMP_NUM_THREADS"]}
        writable = instances[0].pixels.flags.writeable
        return Findings(summary=f"{len(instances)} {instances[0].header} {instances[0].pixels.tolist()} "
                                f"{instances[1].pixels} {instances[1].pixels_error} {facts} {writable}")


class Cardless:
    def predict(self, inputs):
        return None


class Needy:
    card, needs, parameters = CARD, "everything", ()

    def predict(self, inputs):
        return None


class Refuser(Brightness):
    card = card("refuser")

    def predict(self, inputs):
        raise ValueError("too dark\\nto see")


class Crasher(Brightness):
    card = card("crasher")

    def predict(self, inputs):
        raise KeyError("no such organ")


class Segfaulter(Brightness):
    card = card("segfaulter")

    def predict(self, inputs):
        import ctypes
        ctypes.string_at(0)


class Quitter(Brightness):
    card = card("quitter")

    def predict(self, inputs):
        os._exit(0)


class Hoarder(Brightness):
    card = card("hoarder")

    def predict(self, inputs):
        return np.ones(4 * 2**30, np.uint8)


class Liar(Brightness):
    card = card("liar")

    def predict(self, inputs):
        return "fine"


class Misshaper(Brightness):
    card = card("misshaper")

    def predict(self, inputs):
        return Findings((Segment("s", "S", np.ones((1, 1, 1), bool), CODE, CODE),))


class Infinite(Brightness):
    card = card("infinite")

    def predict(self, inputs):
        return Findings((), (Measurement(CODE, float("nan"), UNIT),))


class Sleeper(Brightness):
    """Starts a child of its own, says so, and never ends."""

    card = card("sleeper")

    def predict(self, inputs):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("pids.part", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename("pids.part", "pids")
        time.sleep(600)


class Talkative(Brightness):
    """Finds hundreds of numbers."""

    card = card("talkative")

    def predict(self, inputs):
        return Findings((), tuple(Measurement(CODE, float(n), UNIT, name=f"number-{n}") for n in range(300)),
                        (Evaluation(CODE, "word " * 1000, name="speech"),))


class Pair(Brightness):
    """Takes another series of the study, too."""

    card = card("pair")
    needs = (*NEEDS_VOLUME, Need("other", "volume", "study"))


class Moody(Brightness):
    """Crashes over a series with a negative number."""

    card = card("moody")

    def predict(self, inputs):
        if inputs.volume.header["SeriesNumber"] < 0:
            raise KeyError("not today")
        if not inputs.volume.header["SeriesNumber"]:
            raise ValueError("no number")
        return super().predict(inputs)


class Unloadable(Brightness):
    card = card("unloadable")

    def __init__(self):
        raise LookupError("the weights are of another model")


class Weighty(Brightness):
    """Takes much memory while it is loaded."""

    card = card("weighty")

    def __init__(self):
        self.kept = b"1" * (300 << 20)
        time.sleep(600)


class Told(Brightness):
    """Does what the parameter ``code`` says, and says what that leaves in ``said``."""

    card, parameters = card("told"), (Parameter("code", "", "Python"),)

    def __init__(self):
        # How often it was loaded stays the same for as long as the process lives.
        self.name = os.urandom(8).hex()

    def predict(self, inputs):
        names = {"inputs": inputs, "model": self, "said": ""}
        # As if it stood here: what it raises is raised by the model.
        exec(compile(inputs.parameters["code"], __file__, "exec"), names)
        return Findings(summary=str(names["said"]))
'''

MODELS = {
    "brightness": "Brightness",
    "counter": "Counter",
    "refuser": "Refuser",
    "crasher": "Crasher",
    "segfaulter": "Segfaulter",
    "quitter": "Quitter",
    "hoarder": "Hoarder",
    "liar": "Liar",
    "misshaper": "Misshaper",
    "infinite": "Infinite",
    "sleeper": "Sleeper",
    "moody": "Moody",
    "pair": "Pair",
    "talkative": "Talkative",
    "unloadable": "Unloadable",
    "told": "Told",
    "weighty": "Weighty",
}


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    models: Mapping[str, str] | None = None,
    package: str = "made-models",
) -> None:
    """Put a package with these entry points (name to factory) on the path, here and for children."""
    module = package.replace("-", "_") + "_for_tests"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(SOURCE)
    information = folder / f"{package.replace('-', '_')}-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    entries = "".join(f"{name} = {module}:{factory}\n" for name, factory in (models or MODELS).items())
    (information / "entry_points.txt").write_text(f"[anode.models]\n{entries}")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
