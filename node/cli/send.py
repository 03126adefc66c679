"""``anode send``: files and folders to a peer."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli import command, output
from node.cli.opening import address_of, configuration, peer_named
from node.config.settings import Config, PeerConfig
from node.errors import MalformedDataSet, WrongUsage

if TYPE_CHECKING:
    from node.cli.command import Commands
    from node.sending.dicom_files import DicomFile
    from node.sending.sending import Sent


def register(commands: Commands) -> None:
    """Add the command."""
    send = command.add(
        commands,
        "send",
        _run,
        summary="send DICOM files and folders to a peer (C-STORE)",
        description="Data sets go as they are, byte for byte; where the peer does not take the transfer "
        "syntax of a file, it is sent decompressed. Folders are searched for DICOM files, whatever "
        "their names.",
        examples="anode send ~/dicom/chest-ct --to PACS\nanode send a.dcm b.dcm --to 192.0.2.7:104/PACS\n"
        "anode send study --host 192.0.2.7 --port 104 --ae-title PACS",
    )
    send.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="files and folders")
    send.add_argument("--to", metavar="PEER", help="an AE title of [[peers]], or HOST:PORT/AE_TITLE")
    send.add_argument("--host", metavar="HOST", help="instead of --to, with --port and --ae-title")
    send.add_argument("--port", metavar="PORT", help="see --host")
    send.add_argument("--ae-title", metavar="TITLE", help="the called AE title; see --host")
    send.add_argument("--calling", metavar="TITLE", help="our AE title (default: [node] ae_title)")


def _run(arguments: argparse.Namespace) -> int:
    from node.config.config_values import ae_title

    config = configuration(arguments)
    peer = _peer(config, arguments)
    try:
        calling = ae_title(arguments.calling) if arguments.calling is not None else config.node.ae_title
    except ValueError as error:
        raise WrongUsage(f"--calling: {error}") from None
    for path in arguments.paths:
        if not path.exists():
            raise WrongUsage(f"{path}: there is no such file or folder")
    with_progress = sys.stderr.isatty() and not arguments.json
    files, unreadable, others = _read(arguments.paths, with_progress)
    if not files and not unreadable:
        if arguments.json:
            output.as_json([])
        passed = f" ({output.count(others, 'other file')} passed over)" if others else ""
        output.note(f"there is no DICOM file in what was named{passed}")
        return 1
    begin = time.monotonic()
    sent = _send(config, peer, calling, files, with_progress)
    seconds = time.monotonic() - begin
    if arguments.json:
        output.as_json([*[_for_programs(one) for one in sent], *[_unread(*one) for one in unreadable]])
    else:
        _print(sent, unreadable, others, seconds)
    return 0 if not unreadable and all(one.is_stored for one in sent) else 1


def _peer(config: Config, arguments: argparse.Namespace) -> PeerConfig:
    address = (arguments.host, arguments.port, arguments.ae_title)
    if arguments.to is not None and not any(address):
        return peer_named(config, arguments.to)
    if arguments.to is None and all(address):
        return address_of(*address)
    raise WrongUsage("say where to: --to PEER, or --host, --port and --ae-title together")


def _read(paths: list[Path], with_progress: bool) -> tuple[list[DicomFile], list[tuple[Path, str]], int]:
    """Return the DICOM files, those that cannot be read and why, and the number of other files."""
    from tqdm import tqdm

    from node.sending import dicom_files

    files: list[DicomFile] = []
    unreadable: list[tuple[Path, str]] = []
    others = 0
    named = set(paths)
    found = dicom_files.find(paths)
    for path in tqdm(found, desc="read", unit="file", file=sys.stderr, disable=not with_progress):
        try:
            files.append(dicom_files.read(path))
        except dicom_files.NotDicom as error:
            if path in named:
                unreadable.append((path, str(error)))
            else:
                others += 1
        except MalformedDataSet as error:
            unreadable.append((path, str(error)))
    return files, unreadable, others


def _send(
    config: Config, peer: PeerConfig, calling: str, files: list[DicomFile], with_progress: bool
) -> list[Sent]:
    from tqdm import tqdm

    from node import work_folder
    from node.sending.recoding import uncompressed
    from node.sending.sending import Sender
    from node.wire.tls import ClientTls

    limits = config.limits_of(peer)
    sender = Sender(
        peer,
        calling_ae_title=calling,
        timeout_seconds=limits.network_timeout_seconds,
        max_pdu_bytes=limits.max_pdu_bytes,
        recode=uncompressed,
        tls=ClientTls.of(config, peer),
    )
    total_bytes = sum(file.data_set_bytes for file in files)
    sent = []
    with (
        work_folder.temporary_files(config.node.data_dir),
        tqdm(
            total=total_bytes,
            desc=f"send to {peer.ae_title}",
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=not with_progress,
        ) as progress,
    ):
        for one in sender.send(files):
            sent.append(one)
            progress.set_postfix_str(f"{len(sent)}/{len(files)} files", refresh=False)
            progress.update(one.file.data_set_bytes)
    return sent


def _print(sent: list[Sent], unreadable: list[tuple[Path, str]], others: int, seconds: float) -> None:
    outcomes = Counter(_outcome(one) for one in sent)
    rows: list[list[object]] = [
        [*outcome, number] for outcome, number in sorted(outcomes.items(), key=lambda item: -item[1])
    ]
    if unreadable:
        rows.append(["", "not read", len(unreadable)])
    output.table(["STATUS", "OUTCOME", "FILES"], rows)
    problems = [(one.file.path, _reason(one)) for one in sent if not one.is_stored] + unreadable
    if problems:
        output.line()
        output.first_problems("FILE", problems)
    stored = [one for one in sent if one.is_stored]
    stored_bytes = sum(one.file.data_set_bytes for one in stored)
    rate = f" ({output.size(stored_bytes / seconds)}/s)" if seconds > 0 and stored_bytes else ""
    what = f"{output.count(len(stored), 'instance')}, {output.size(stored_bytes)}"
    output.line(f"\n{what} in {seconds:.1f} s{rate}")
    if others:
        output.line(f"{output.count(others, 'other file')} passed over: not DICOM")


def _outcome(one: Sent) -> tuple[str, str]:
    if one.status is None:
        return "", "not sent"
    return (
        f"{one.status:04X}",
        "stored" if one.status == 0 else "stored, with a warning" if one.is_stored else ("refused"),
    )


def _reason(one: Sent) -> str:
    if one.status is None:
        return one.problem
    return f"refused with status {one.status:04X} {one.comment}".strip()


def _for_programs(one: Sent) -> dict[str, object]:
    return {
        "file": str(one.file.path),
        "sop_class_uid": one.file.sop_class_uid,
        "sop_instance_uid": one.file.sop_instance_uid,
        "transfer_syntax_uid": one.file.transfer_syntax_uid,
        "sent_transfer_syntax_uid": one.transfer_syntax_uid or None,
        "stored": one.is_stored,
        "status": None if one.status is None else f"{one.status:04X}",
        "comment": one.comment,
        "problem": one.problem,
    }


def _unread(path: Path, problem: str) -> dict[str, object]:
    return {"file": str(path), "stored": False, "status": None, "problem": problem}
