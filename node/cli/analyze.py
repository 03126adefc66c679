"""``anode analyze``: a model on files, without a node."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from node.cli import command, output
from node.cli.opening import keep_others_out
from node.config.config_values import listed, suggestion
from node.config.settings import AnalysisConfig, Device, JobsConfig, ResultKind
from node.errors import AnodeError, JobError, StorageFailure, WrongUsage
from node.found import is_reason, shown_word

if TYPE_CHECKING:
    from models.types import Findings
    from node.analysis.making import Performed
    from node.analysis.order import Order
    from node.catalogue.catalogue import Description
    from node.cli.command import Commands
    from node.processes.workers import Workers
    from node.series.file_series import FileSeries

_KINDS: tuple[str, ...] = get_args(ResultKind)
_DEVICES: tuple[str, ...] = get_args(Device)
_DEFAULT_KINDS = AnalysisConfig("", "").results


def register(commands: Commands) -> None:
    """Add the command."""
    analyze = command.add(
        commands,
        "analyze",
        _run,
        summary="run a model on DICOM files, without a node",
        description="Every series at PATH is given to the model as a node would do it, and the results are "
        "written to DIR, with a picture. Exit status 1 when no series had a result.",
        examples="anode analyze ~/dicom/chest-ct --model lungs -o results\n"
        "anode analyze pet/ --model ./fusion --input ct=ct/ -p threshold=2.5 -o results --results sr,sc",
        config=False,
    )
    analyze.add_argument("path", metavar="PATH", type=Path, help="a file or folder of one or more series")
    analyze.add_argument(
        "--model", metavar="MODEL", required=True, help="a name that 'anode models' lists, or a model folder"
    )
    analyze.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="where results go")
    analyze.add_argument(
        "-p",
        "--parameter",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a parameter of the model; VALUE as in config.toml, or a plain word",
    )
    analyze.add_argument(
        "--input",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="a further input of the model: a file or folder of one series",
    )
    analyze.add_argument(
        "--results",
        metavar="KINDS",
        default=",".join(_DEFAULT_KINDS),
        help=f"which result objects (default: {','.join(_DEFAULT_KINDS)}); there are {', '.join(_KINDS)}",
    )
    analyze.add_argument("--device", choices=_DEVICES, default="auto", help="where it computes")
    analyze.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=command.positive_seconds,
        default=JobsConfig.timeout_seconds,
        help=f"for each series (default: {JobsConfig.timeout_seconds:g})",
    )
    analyze.add_argument("--memory-mb", metavar="N", type=int, default=0, help="0 is no limit (default)")
    analyze.add_argument(
        "--allow-network", action="store_true", help="let the model use the network, and the disk if need be"
    )


@dataclass(frozen=True)
class _Outcome:
    """What became of one series: objects in files, or why there are none."""

    series: FileSeries
    performed: Performed | None = None
    files: tuple[Path, ...] = ()
    error: AnodeError | None = None


def _run(arguments: argparse.Namespace) -> int:
    from node.processes.workers import Workers
    from node.series import file_series

    keep_others_out()
    order = _order(arguments)
    pairs = _pairs("--input", arguments.input)
    for path in (arguments.path, *map(Path, pairs.values())):
        if not path.exists():
            raise WrongUsage(f"{path}: there is no such file or folder")
    others = {name: file_series.only([Path(path)], f"--input {name}") for name, path in pairs.items()}
    _check_inputs(order.description, others)
    found = file_series.find([arguments.path])
    for path, why in found.unusable:
        output.note(f"{path}: {why}")
    further = {(one.study_instance_uid, one.series_instance_uid) for one in others.values()}
    series = [one for one in found.series if (one.study_instance_uid, one.series_instance_uid) not in further]
    if not series:
        raise WrongUsage(f"{arguments.path}: there is no DICOM image here")
    _refuse_to_overwrite(arguments.output, series)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="anode-analyze-") as folder:
        workers = Workers(Path(folder))
        try:
            for one in series:
                outcome = _analyze(workers, order, {_primary(order): one, **others}, arguments.output)
                outcomes.append(outcome)
                if not arguments.json:
                    _tell(outcome)
        finally:
            workers.stop()
    if arguments.json:
        output.as_json([_as_json(outcome) for outcome in outcomes])
    return 0 if any(one.performed is not None for one in outcomes) else 1


def _primary(order: Order) -> str:
    return order.description.needs[0].name


def _order(arguments: argparse.Namespace) -> Order:
    from datetime import UTC, datetime

    from models import registry
    from node.analysis.order import Order, threads_of_each
    from node.catalogue import catalogue, parameters

    model = arguments.model
    reference = str(Path(model).expanduser().resolve()) if _is_folder(model) else model
    try:
        description = catalogue.describe(reference)
        catalogue.verify(description)
    except registry.UnknownModel as error:
        action = None if _is_folder(model) else "'anode models' lists all"
        raise WrongUsage(str(error), action=action) from error
    except registry.UnusableModel as error:
        raise WrongUsage(str(error), action=f"'anode models check {model}' says all that is wrong") from error
    texts = {one.name for one in description.parameters if isinstance(one.default, str)}
    given = {key: _value(text, key in texts) for key, text in _pairs("-p", arguments.parameter).items()}
    try:
        values = catalogue.read_parameters(description, given)
    except parameters.ParameterFaults as error:
        raise WrongUsage(str(error), action=f"'anode models {model}' shows them") from error
    kinds = [word.strip() for word in arguments.results.split(",") if word.strip()]
    for kind in kinds:
        if kind not in _KINDS:
            hint = suggestion(kind, _KINDS) or f"; there are {listed(_KINDS)}"
            raise WrongUsage(f"--results: there is no kind '{kind}'{hint}")
    if not kinds or arguments.memory_mb < 0:
        raise WrongUsage("--results: name at least one" if not kinds else "--memory-mb: expected 0 or more")
    return Order(
        analysis=description.card.name,
        description=description,
        parameters=values,
        results=kinds,
        started_at=datetime.now(UTC),
        timeout_seconds=arguments.timeout,
        memory_mb=arguments.memory_mb,
        device=arguments.device,
        threads=threads_of_each(1),
        allow_network=arguments.allow_network,
    )


def _is_folder(model: str) -> bool:
    return "/" in model or model.startswith((".", "~")) or Path(model, "analysis.toml").is_file()


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise WrongUsage(f"{option}: expected KEY=VALUE, not '{one}'")
        if key in pairs:
            raise WrongUsage(f"{option}: {key} is given twice")
        pairs[key] = value
    return pairs


def _value(text: str, is_text: bool) -> Any:
    """Read a value as TOML has it; a plain word, or what a text parameter is given, is text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if is_text and not isinstance(value, str) else value


def _check_inputs(description: Description, others: Mapping[str, FileSeries]) -> None:
    further = {need.name: need for need in description.needs[1:]}
    for name in others:
        if name not in further:
            hint = suggestion(name, further) or (f"; it takes {listed(sorted(further))}" if further else "")
            raise WrongUsage(f"--input {name}: the model has no further input of this name{hint}")
    missing = [name for name, need in further.items() if not need.is_optional and name not in others]
    if missing:
        raise WrongUsage(f"the model needs {listed(missing)} too; give each with --input NAME=PATH")


def _analyze(workers: Workers, order: Order, given: Mapping[str, FileSeries], folder: Path) -> _Outcome:
    from node.analysis.making import Making
    from node.analysis.performing import perform
    from node.processes.job_folder import JobFolder
    from node.series import digests, file_series, model_inputs
    from node.series.model_inputs import Material

    series = given[_primary(order)]

    def read(job: JobFolder) -> Material:
        file_series.refuse_strangers(order.description.needs, given)
        digest = digests.combined({name: digests.of_files(one.paths) for name, one in given.items()})
        instances = {name: one.instances for name, one in given.items()}
        return model_inputs.of_sources(instances, order.description.needs, digest, order.parameters, job)

    try:
        performed = perform(workers, order, Making(order, read))
    except (AnodeError, JobError) as error:
        return _Outcome(series, error=error)
    return _Outcome(series, performed, tuple(_written(performed, series, folder)))


def _refuse_to_overwrite(folder: Path, series: Sequence[FileSeries]) -> None:
    for one in series:
        if (here := _folder_of(one, folder)).exists():
            raise WrongUsage(f"{here} is there already", action="name another DIR with -o, or remove it")


def _folder_of(series: FileSeries, folder: Path) -> Path:
    # The study too: a Series Instance UID is there in two of them where somebody has copied carelessly.
    study = hashlib.sha256(series.study_instance_uid.encode()).hexdigest()[:8]
    return folder / f"series-{series.number}-{series.series_instance_uid}-of-{study}"


def _written(performed: Performed, series: FileSeries, folder: Path) -> list[Path]:
    """Write each object to a file of its own; the first Secondary Capture as a picture, too."""
    from node.demo.pictures import save_picture

    files: list[Path] = []
    counts: dict[str, int] = {}
    try:
        here = _folder_of(series, folder)
        here.mkdir(parents=True)
        for one in performed.objects:
            counts[one.kind] = counts.get(one.kind, 0) + 1
            total = sum(other.kind == one.kind for other in performed.objects)
            name = one.kind if total == 1 else f"{one.kind}-{counts[one.kind]:04}"
            path = here / f"{name}.dcm"
            path.write_bytes(one.part10)
            files.append(path)
            if one.kind == "sc" and counts["sc"] == 1:
                files.append(save_picture(path, here / "picture.png"))
    except OSError as error:
        raise StorageFailure(f"{folder} cannot be written: {error.strerror or error}") from error
    return files


def _tell(outcome: _Outcome) -> None:
    series = outcome.series
    count = output.count(len(series.instances), "instance")
    output.line(f"series {series.number} ({series.modality or 'no modality'}, {count})")
    if outcome.performed is None:
        assert outcome.error is not None
        output.line(f"  no result: {outcome.error}")
        if outcome.error.action:
            output.line(f"  {outcome.error.action}")
        return
    for text in _said(outcome.performed.findings):
        output.line(f"  {text}")
    folder = outcome.files[0].parent if outcome.files else None
    output.line(f"  {output.count(len(outcome.files), 'file')} in {folder}" if folder else "  no file")


def _said(findings: Findings) -> list[str]:
    from node.analysis.facts import facts_of

    found = facts_of(findings)
    lines = [
        f"{name}: {shown_word(words[0])}"
        for name, words in found.items()
        if words and not is_reason(found, name)
    ]
    lines += [f"{one.name}: {one.reason}" for one in findings.checks if not one.passed and one.reason]
    return [*lines, findings.summary] if findings.summary else lines


def _as_json(outcome: _Outcome) -> dict[str, Any]:
    from node.analysis.facts import facts_of

    told: dict[str, Any] = {
        "series_instance_uid": outcome.series.series_instance_uid,
        "modality": outcome.series.modality,
        "instances": len(outcome.series.instances),
        "files": [str(path) for path in outcome.files],
    }
    if outcome.error is not None:
        return told | {"error": outcome.error.name, "reason": str(outcome.error)}
    assert outcome.performed is not None
    findings = outcome.performed.findings
    checks = [{"name": one.name, "passed": one.passed, "reason": one.reason} for one in findings.checks]
    found = {name: words for name, words in facts_of(findings).items() if words}
    return told | {"found": found, "checks": checks, "summary": findings.summary}
