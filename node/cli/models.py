"""``anode models``: what ``model = …`` may say, and what belongs to a model folder."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.cli import command, output

if TYPE_CHECKING:
    from models.types import Code
    from node.catalogue.catalogue import Description
    from node.catalogue.pinned_files import PinnedFile
    from node.cli.command import Commands

_ACTIONS = ("check", "install", "pin")
_LOADS_WITHIN_SECONDS = 300.0


def register(commands: Commands) -> None:
    """Add the command."""
    models = command.add(
        commands,
        "models",
        _run,
        summary="list the models that an analysis can name",
        description="A model is checked: what is wrong with its folder, and whether it can be loaded. Of a "
        "folder the tables that pin its files by their SHA-256 are printed, and files that come in a package "
        "are fetched.",
        examples="anode models\nanode models lungs\nanode models /opt/models/bone\n"
        "anode models check /opt/models/bone\nanode models pin /opt/models/bone >> analysis.toml\n"
        "anode models install examples/bone --into /opt/models",
    )
    models.add_argument(
        "words", metavar="NAME|FOLDER", nargs="*", help="show or check this model; pin or install that folder"
    )
    models.add_argument(
        "--allow-network", action="store_true", help="check: let the model use the network while it is loaded"
    )
    models.add_argument("--into", metavar="DIR", help="install: make a whole copy of the folder in there")


def _run(arguments: argparse.Namespace) -> int:
    from node.errors import WrongUsage

    words: list[str] = arguments.words
    action = words[0] if len(words) == 2 and words[0] in _ACTIONS else ""
    if len(words) > 1 and not action:
        raise WrongUsage(f"expected one NAME or FOLDER, or {', '.join(_ACTIONS)} and a FOLDER, not {words}")
    if arguments.allow_network and action != "check":
        raise WrongUsage("--allow-network belongs to 'anode models check'")
    if arguments.into is not None and action != "install":
        raise WrongUsage("--into belongs to 'anode models install FOLDER'")
    if action == "check":
        return _check(words[1], allow_network=arguments.allow_network, as_json=arguments.json)
    if action == "pin":
        return _pin(_folder(words[1]))
    if action == "install":
        return _install(words[1], arguments.into, as_json=arguments.json)
    return _show(words[0] if words else None, as_json=arguments.json)


def _show(name: str | None, *, as_json: bool) -> int:
    from models import registry
    from node.catalogue import catalogue
    from node.errors import WrongUsage

    wanted = catalogue.names() if name is None else [_reference(name)]
    described: list[Description] = []
    unusable: list[tuple[str, str]] = []
    for one in wanted:
        try:
            described.append(catalogue.describe(one))
        except registry.UnknownModel as error:
            action = None if catalogue.is_folder(one) else "'anode models' lists all"
            raise WrongUsage(str(error), action=action) from error
        except registry.UnusableModel as error:
            unusable.append((one, str(error)))
    if as_json:
        known = [_plain(one) for one in described]
        output.as_json([*known, *({"name": one, "problem": why} for one, why in unusable)])
    elif name is not None and described:
        _print(described[0])
    else:
        _list(described)
    for one, why in unusable:
        output.note(f"model {one} cannot be used: {why}")
    return 1 if unusable else 0


def _list(described: Sequence[Description]) -> None:
    """Print what one has to know of each model to choose it."""
    for number, one in enumerate(described):
        if number:
            output.line()
        card = one.card
        output.line(f"{card.name} {card.version}: {card.title}")
        facts: list[tuple[str, object]] = [
            ("  intended use", card.intended_use),
            ("  inputs", card.inputs),
            ("  outputs", card.outputs),
            *(("  parameter", _told_parameter(parameter)) for parameter in one.parameters),
            ("  evidence", card.evidence),
            ("  limits", card.limits),
            ("  licence", card.licence),
        ]
        output.facts(facts)


def _check(name: str, *, allow_network: bool, as_json: bool) -> int:
    """Say everything that is wrong with a model; one whose files are right is loaded."""
    from models import registry
    from node.catalogue import catalogue

    is_name = name in catalogue.names() or (os.sep not in name and not Path(name).is_dir())
    reference = name if is_name else str(_folder(name))
    try:
        problems = catalogue.all_faults(reference)
    except registry.UnknownModel as error:
        problems = [str(error)]
    if not problems:
        problems = _faults_of_loading(catalogue.describe(reference), allow_network=allow_network)
    if as_json:
        output.as_json({"model": reference, "problems": problems})
    elif problems:
        for one in problems:
            output.line(one)
    else:
        description = catalogue.describe(reference)
        told = f"{description.card.name} {description.card.version}"
        if description.folder is not None:
            told = f"{reference}: {told}, {output.count(len(description.files), 'file')} as pinned"
        output.line(f"{told}, can be loaded")
    return 1 if problems else 0


def _faults_of_loading(description: Description, *, allow_network: bool) -> list[str]:
    """Load a model in a process as it is to run in, and say what kept it from that."""
    from node.analysis.order import threads_of_each
    from node.errors import AnodeError, ModelNotConfined
    from node.processes.workers import Workers, WorkerSpec

    spec = WorkerSpec(description, threads=threads_of_each(1), allow_network=allow_network)
    with tempfile.TemporaryDirectory(prefix="anode-check-") as folder:
        workers = Workers(Path(folder))
        try:
            with workers.lease(spec) as worker, worker.job_folder() as job:
                worker.load(job, _LOADS_WITHIN_SECONDS)
        except ModelNotConfined as error:
            return [f"{error}; --allow-network loads it all the same"]
        except AnodeError as error:
            return [str(error)]
        finally:
            workers.stop()
    return []


def _pin(folder: Path) -> int:
    """Print the tables that pin what is not pinned yet, and say which files are others than was pinned."""
    from node.catalogue import pinned_files
    from node.errors import WrongUsage

    if not folder.is_dir():
        raise WrongUsage(f"there is no folder {folder}")
    pins, unpinned = _pinned(folder)
    tables = pinned_files.stanza(folder, but=frozenset([*(one.path for one in pins), *unpinned])).strip()
    if tables:
        output.line(tables)
    others = list(pinned_files.others(folder, pins))
    for path, digest in others:
        output.note(
            f"{folder / path} is another file than was pinned; if it is right, write this in its table of "
            f'{pinned_files.STATED}: sha256 = "{digest}"'
        )
    if not tables and not others:
        output.note(f"no file of {folder} is left to pin")
    return 1 if others else 0


def _pinned(folder: Path) -> tuple[Sequence[PinnedFile], Sequence[str]]:
    """Return the pins of a folder, and what it leaves out."""
    from models import registry
    from node.catalogue import model_folder

    try:
        runner = model_folder.read(folder).runner
    except model_folder.FolderFaults as error:
        # it may lack nothing but what is asked for here
        return error.pins, error.unpinned
    except registry.UnknownModel:
        return (), ()
    return runner.files, runner.unpinned


def _install(name: str, into: str | None, *, as_json: bool) -> int:
    """Fetch what a folder lacks."""
    from models import registry
    from node.catalogue import catalogue, fetching, model_folder
    from node.errors import WrongUsage

    if name in catalogue.names():
        output.note(f"model {name} is installed; it needs no further files")
        return 0
    try:
        folder = model_folder.read(_folder(name))
    except registry.UnknownModel as error:
        raise WrongUsage(str(error)) from error
    except registry.UnusableModel as error:
        raise WrongUsage(f"this model folder cannot be used:\n{error}") from error
    whole = fetching.install(folder, None if into is None else Path(into).expanduser().resolve())
    if as_json:
        output.as_json({"folder": str(whole), "files": [one.path for one in folder.runner.files]})
    else:
        output.line(f"{folder.card.name} {folder.card.version} is whole")
        output.line(f'model = "{whole}"   # in an [[analyses]] table')
    return 0


def _reference(name: str) -> str:
    """Return what the catalogue knows a model by: a folder by its absolute path."""
    from node.catalogue import catalogue

    is_folder = catalogue.is_folder(name) or name.startswith((".", "~"))
    return str(_folder(name)) if is_folder else name


def _folder(name: str) -> Path:
    return Path(name).expanduser().resolve()


# --- what is printed ---------------------------------------------------------


def _plain(one: Description) -> dict[str, Any]:
    """Return a description for programs."""
    return {
        **asdict(one.card),
        "runner": one.kind,
        "folder": None if one.folder is None else str(one.folder),
        "needs": [asdict(need) for need in one.needs],
        "parameters": [asdict(parameter) for parameter in one.parameters],
        "files": [asdict(file) for file in one.files],
        "when": [{"name": name, "what": what} for name, what in one.askable],
    }


def _print(one: Description) -> None:
    card = asdict(one.card)
    card["family"] = _told(one.card.family)
    facts: list[tuple[str, object]] = [(key.replace("_", " "), value) for key, value in card.items() if value]
    facts.append(("runner", one.kind))
    if one.folder is not None:
        facts.append(("folder", one.folder))
    facts += [("input", _told_need(need)) for need in one.needs]
    facts += [("parameter", _told_parameter(parameter)) for parameter in one.parameters]
    # of a later analysis; as docs/analyses.md has it
    facts += [("when", f"ANALYSIS.{name}: {what}") for name, what in one.askable]
    facts += [("file", f"{file.path} {file.sha256}") for file in one.files]
    output.facts(facts)


def _told(code: Code) -> str:
    return f"{code.meaning} ({code.value}, {code.scheme})"


def _told_need(need: Any) -> str:
    words = [f"{need.name}: {need.kind}"]
    words += [f"from {need.comes_from}"] if need.comes_from != "series" else []
    words += ["optional"] if need.is_optional else []
    words += ["of " + " or ".join(need.modalities)] if need.modalities else []
    words += [f"in {need.unit}"] if need.unit else []
    words += [f"at least {need.min_slices} slices"] if need.min_slices else []
    return ", ".join(words)


def _told_parameter(one: Any) -> str:
    bounds = [f"at least {one.minimum:g}"] if one.minimum is not None else []
    bounds += [f"at most {one.maximum:g}"] if one.maximum is not None else []
    bounds += [f"one of {', '.join(map(str, one.choices))}"] if one.choices else []
    told = f" ({', '.join(bounds)})" if bounds else ""
    return f"{one.name} = {one.default}{told}: {one.meaning}"
