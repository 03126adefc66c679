"""``anode demo``: the whole way of a study, on this machine, in front of your eyes."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from node import analysis_runs, logs
from node.app import App
from node.cli import output
from node.config.settings import AnalysisConfig, Config, NodeConfig, PeerConfig, StorageConfig, StudyConfig
from node.demo.chest_ct import write_chest_ct
from node.demo.pacs import HeldObject, SmallPacs
from node.demo.phantom import ChestPhantom
from node.demo.pictures import save_picture
from node.demo.report import ReportedNumber, numbers
from node.errors import AnodeError, MalformedDataSet, WrongUsage
from node.index.index import StoredInstance
from node.jobs import listing
from node.sending import dicom_files
from node.sending.dicom_files import DicomFile
from node.sending.recoding import uncompressed
from node.sending.sending import Sender, Sent

DEFAULT_OUTPUT = Path("demo-output")
MOST_OFF_PERCENT = 3.0
QUIET_SECONDS = 2.0
PATIENCE_SECONDS = 600.0


def main(arguments: argparse.Namespace) -> int:
    """Run the demo on the phantom, or on the files at ``arguments.path``; return the exit status."""
    folder = Path(arguments.output) if arguments.output else DEFAULT_OUTPUT
    if arguments.path is not None and not Path(arguments.path).exists():
        raise WrongUsage(f"{arguments.path} does not exist")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "demo.json").is_file():
        raise WrongUsage(f"{folder} is not empty and not of an earlier demo", action="name another --output")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "demo.json").write_text(json.dumps({"made by": "anode demo"}) + "\n")
    return Demo(folder, Path(arguments.path) if arguments.path else None).run()


class Demo:
    """One run; everything that it makes lies in ``folder``."""

    def __init__(self, folder: Path, source: Path | None) -> None:
        self._folder = folder
        self._source = source
        self._phantom = ChestPhantom()
        self._started = time.monotonic()

    def run(self) -> int:
        """Go the whole way, then print the table."""
        with ExitStack() as exits:
            scratch = Path(
                exits.enter_context(tempfile.TemporaryDirectory(prefix="scratch-", dir=self._folder))
            )
            pacs = SmallPacs(self._folder / "pacs")
            exits.callback(pacs.stop)
            self._say("PACS", f"a small PACS of its own listens on 127.0.0.1:{pacs.port}")
            config = self._configuration(pacs.port)
            exits.enter_context(logs.configured(replace(config.log, level="ERROR")))
            app = App(config)
            app.start()
            exits.callback(app.stop)
            self._say("node", f"ANODE listens on 127.0.0.1:{app.server.port}")
            files = self._files(scratch)
            sent = self._send(files, app)
            refused = [one for one in sent if not one.is_stored]
            for one in refused[:10]:
                answer = f"status {one.status:04X}H" if one.status is not None else "no answer"
                self._say("refused", f"{one.file.path.name}: {answer} {one.comment or one.problem}")
            if len(refused) == len(sent):
                self._say("stopped", "nothing could be stored")
                return 1
            self._follow(app, pacs)
            return self._conclude(app, pacs, bool(refused))

    # --- the steps -----------------------------------------------------------

    def _configuration(self, pacs_port: int) -> Config:
        send_to = (SmallPacs.ae_title,)
        return Config(
            node=NodeConfig(port=0, data_dir=self._folder / "data"),
            storage=StorageConfig(free_space_reserve_bytes=256 * 1024**2),
            study=StudyConfig(quiet_seconds=QUIET_SECONDS),
            peers=(PeerConfig(SmallPacs.ae_title, "127.0.0.1", pacs_port),),
            analyses=(
                AnalysisConfig("lungs", "lungs", when={"Modality": "CT"}, send_to=send_to),
                # naming ImageType takes derived series too: these may be all that a folder has
                AnalysisConfig(
                    "series-quality",
                    "series-quality",
                    when={"ImageType": "*"},
                    results=("sr", "sc"),
                    send_to=send_to,
                ),
            ),
        )

    def _files(self, scratch: Path) -> list[DicomFile]:
        if self._source is not None:
            files, passed_over = [], 0
            for path in dicom_files.find([self._source]):
                try:
                    files.append(dicom_files.read(path))
                except MalformedDataSet:
                    passed_over += 1
            if not files:
                raise WrongUsage(f"{self._source} holds no DICOM files")
            others = f", {passed_over} other files passed over" if passed_over else ""
            self._say("files", f"{len(files)} DICOM files in {self._source}{others}")
            return files
        slices, rows, columns = self._phantom.size
        made = write_chest_ct(self._phantom, scratch, datetime.now())
        progress = tqdm(made, total=slices, desc="  making", unit="slice", file=sys.stderr)
        files = [dicom_files.read(path) for path in progress]
        self._say("phantom", f"a chest CT of known geometry, {slices} slices of {rows} x {columns}")
        return files

    def _send(self, files: Sequence[DicomFile], app: App) -> list[Sent]:
        sender = Sender(
            PeerConfig("ANODE", "127.0.0.1", app.server.port),
            calling_ae_title="SCANNER",
            timeout_seconds=60,
            max_pdu_bytes=131072,
            recode=uncompressed,
        )
        begun = time.monotonic()
        sent = list(tqdm(sender.send(files), total=len(files), desc=" sending", unit="file", file=sys.stderr))
        seconds = time.monotonic() - begun
        stored = sum(one.is_stored for one in sent)
        size = sum(one.file.data_set_bytes for one in sent if one.is_stored)
        self._say(
            "stored",
            f"{stored} of {len(sent)} instances, {output.size(size)} in {seconds:.1f} s, each durable "
            "before its Success",
        )
        return sent

    def _follow(self, app: App, pacs: SmallPacs) -> None:
        """Wait for each stage, and say so when it is reached."""
        self._wait(lambda: _unfinished(app, "settle") == 0, "settling")
        self._say("proven", f"{_proof(_received(app))} restored byte for byte from what is stored")
        self._wait(lambda: _is_complete(app), "completion")
        self._say("complete", f"no new instance for {QUIET_SECONDS:g} s")
        self._wait(lambda: _unfinished(app, "select", "analyze") == 0, "analysis")
        for text in _run_lines(app):
            self._say("analysed", text)
        self._wait(lambda: _unfinished(app, "deliver") == 0, "delivery")
        self._say("returned", f"{len(pacs.held())} objects are at the PACS")

    def _conclude(self, app: App, pacs: SmallPacs, is_partly_refused: bool) -> int:
        held = pacs.held()
        output.line()
        is_exact = True
        reports = [numbers(one.path) for one in held if one.modality == "SR"]
        measured = [number for report in reports for number in report]
        if self._source is None:
            is_exact = self._compare(measured)
        elif measured:
            output.table(
                ("region", "measured", "value", "unit"),
                [(n.region, n.concept, f"{n.value:.4g}", n.unit) for n in measured],
            )
        output.line()
        received = _received(app)
        output.facts(
            [
                ("compression ratio", _ratio(received)),
                ("proof", f"{_proof(received)} restore to the bytes received; the proof is in each file"),
                ("kept as received", _kept(received)),
            ]
        )
        output.line()
        output.table(
            ("object at the PACS", "modality", "series", "size"),
            [(one.sop_class, one.modality, one.description, output.size(one.bytes)) for one in held],
        )
        output.line()
        pictures = _pictures(held, self._folder)
        for picture in pictures:
            output.line(f"picture: {picture}")
        seconds = time.monotonic() - self._started
        output.line(f"all of it: {self._folder} ({seconds:.0f} s)")
        if not is_exact:
            output.line(f"FAILED: a volume is more than {MOST_OFF_PERCENT:g} % off")
        if not held:
            output.line("FAILED: no result reached the PACS; the reasons are above")
        return 0 if is_exact and held and not is_partly_refused else 1

    def _compare(self, measured: Sequence[ReportedNumber]) -> bool:
        """Print known beside measured, and return whether every volume is close enough."""
        rows: list[tuple[str, str, str, str, str]] = []
        is_exact = True
        for side in ("left", "right"):
            known = self._phantom.volume_ml(side)
            low = 100.0 * self._phantom.emphysema_ml(side) / known
            for what, unit, truth, counts in (
                ("volume", "ml", known, True),
                ("below -950 HU", "%", low, False),
            ):
                value = _find(measured, side, unit)
                if value is None:
                    rows.append((f"{side} lung, {what}", f"{truth:.1f} {unit}", "none", "", "missing"))
                    is_exact = False
                    continue
                off = 100.0 * (value - truth) / truth
                is_close = abs(off) <= MOST_OFF_PERCENT
                is_exact &= is_close or not counts
                rows.append(
                    (
                        f"{side} lung, {what}",
                        f"{truth:.1f} {unit}",
                        f"{value:.1f} {unit}",
                        f"{off:+.2f} %",
                        "ok" if is_close else "OFF",
                    )
                )
        output.table(("", "known", "measured", "off by", ""), rows)
        return is_exact

    # --- speaking and waiting ------------------------------------------------

    def _say(self, stage: str, text: str) -> None:
        output.line(f"{time.monotonic() - self._started:6.1f} s  {stage:<9} {text}")
        sys.stdout.flush()

    def _wait(self, is_reached: Callable[[], bool], stage: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_reached():
            if time.monotonic() > deadline:
                raise AnodeError(f"{stage} did not end in {PATIENCE_SECONDS:g} s")
            time.sleep(0.1)


def _unfinished(app: App, *kinds: str) -> int:
    with app.services.database.read() as connection:
        counts = listing.counts(connection)
    return sum(counts.get(state, {}).get(kind, 0) for state in ("ready", "leased") for kind in kinds)


def _received(app: App) -> list[StoredInstance]:
    """What came from outside."""
    with app.services.database.read() as connection:
        return [stored for stored in app.services.index.instances(connection) if not stored.is_own]


def _is_complete(app: App) -> bool:
    """Whether every analysis has been asked for every study that has arrived."""
    studies = {stored.study_instance_uid for stored in _received(app)}
    with app.services.database.read() as connection:
        return not any(app.services.completion.waiting(connection, study) for study in studies)


def _run_lines(app: App) -> list[str]:
    lines = []
    for study in sorted({stored.study_instance_uid for stored in _received(app)}):
        with app.services.database.read() as connection:
            runs = analysis_runs.of_study(connection, study)
        lines += [f"{run['analysis']}: {run['state']} {run['reason']}".rstrip() for run in runs]
    return lines


def _proof(received: Sequence[StoredInstance]) -> str:
    proven = sum(1 for stored in received if stored.is_settled and not stored.kept_reason)
    return f"{proven} of {len(received)} instances"


def _kept(received: Sequence[StoredInstance]) -> str:
    reasons = Counter(stored.kept_reason for stored in received if stored.kept_reason)
    return "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common()) or "none"


def _ratio(received: Sequence[StoredInstance]) -> str:
    """Bytes received to bytes stored, over what was compressed here."""
    compressed = [stored.proof for stored in received if stored.proof and not stored.kept_reason]
    before = sum(proof["received"]["length"] for proof in compressed)
    after = sum(proof["stored"]["length"] for proof in compressed)
    return f"{before / after:.2f} to 1" if after else "nothing to compress"


def _find(measured: Sequence[ReportedNumber], side: str, unit: str) -> float | None:
    for number in measured:
        if side in number.region.lower() and number.unit == unit:
            return number.value
    return None


def _pictures(held: Sequence[HeldObject], folder: Path) -> list[Path]:
    return [
        save_picture(one.path, folder / f"{one.path.stem}.png")
        for one in held
        if one.sop_class.startswith("Secondary Capture")
    ]
