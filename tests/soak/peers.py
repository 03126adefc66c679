"""The peers of a soak, each a process of its own that may be killed at any moment.

``python -m tests.soak.peers sender|asker PORT FOLDER SEED`` and ``… pacs PORT FOLDER``. What a peer was told
or holds is a line in its file below FOLDER, written before anything else happens, so that a kill loses none.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import uid
from pynetdicom import AE, AllStoragePresentationContexts, evt

from node import status
from node.errors import PeerError
from node.wire import scu
from tests.support import made
from tests.support.retrieving import find, get_digests

IMAGES = 10
SIZE = 96
#: One study of so many is analysed: an analysis takes more of the processor than all else of a study.
STUDIES_FOR_ONE_ANALYSIS = 5
ANALYSED, NOT_ANALYSED = "CHEST", "HEAD"
#: Between two studies of a sender, and two questions of the asker; the disk of an hour stays small.
PAUSE_SECONDS = 0.5
SYNTAX = str(uid.ExplicitVRLittleEndian)


def note(file: Path, *words: str) -> None:
    """Append a line in one write."""
    with file.open("ab", buffering=0) as opened:
        opened.write((" ".join(words) + "\n").encode("ascii"))


def lines(folder: Path, name: str) -> list[list[str]]:
    """All whole lines of the files of ``name``, split into words; a kill may leave a torn last one."""
    found: list[list[str]] = []
    for file in sorted(folder.glob(f"{name}-*")):
        found += [
            line.split() for line in file.read_text("ascii").splitlines(keepends=True) if line[-1] == "\n"
        ]
    return found


def study(rng: np.random.Generator, body_part: str) -> Iterator[tuple[str, str, bytes]]:
    """Images of a new CT study: Study and SOP Instance UID, and the data set as it is sent."""
    study_instance_uid, series_instance_uid, frame_of_reference_uid = (uid.generate_uid() for _ in range(3))
    plane = np.add.outer(np.arange(SIZE), np.arange(SIZE))
    for number in range(IMAGES):
        pixels = (plane * 3 + number + rng.integers(0, 40, plane.shape)).astype("<i2")
        image = made.ct_image(
            pixels=pixels,
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            BodyPartExamined=body_part,
            PatientID=f"SOAK-{study_instance_uid[-8:]}",
            InstanceNumber=number + 1,
            ImagePositionPatient=[0.0, 0.0, 1.5 * number],
            FrameOfReferenceUID=frame_of_reference_uid,
        )
        yield study_instance_uid, str(image.SOPInstanceUID), made.encoded(image, SYNTAX)


def send_for_ever(port: int, folder: Path, seed: int) -> None:
    """Send study after study, each in an association, and again what was not answered."""
    rng = np.random.default_rng(seed)
    told = folder / f"acknowledged-{os.getpid()}"
    for number in itertools.count():
        body_part = NOT_ANALYSED if number % STUDIES_FOR_ONE_ANALYSIS else ANALYSED
        images = list(study(rng, body_part))
        for study_instance_uid, sop_instance_uid, data_set in _in_associations(port, images):
            digest = hashlib.sha256(data_set).hexdigest()
            note(told, study_instance_uid, sop_instance_uid, digest, body_part)
        time.sleep(PAUSE_SECONDS)


def _in_associations(port: int, images: list[tuple[str, str, bytes]]) -> Iterator[tuple[str, str, bytes]]:
    context = scu.ProposedContext(made.CT_IMAGE_STORAGE, (SYNTAX,))
    left = list(images)
    while left:
        try:
            with scu.connect(
                "127.0.0.1",
                port,
                calling_ae_title="SCANNER",
                called_ae_title="ANODE",
                contexts=[context],
                timeout_seconds=60,
                max_pdu_bytes=131072,
            ) as association:
                accepted = association.context_for(made.CT_IMAGE_STORAGE)
                assert accepted is not None
                while left:
                    answer = association.send_store(
                        accepted,
                        sop_class_uid=made.CT_IMAGE_STORAGE,
                        sop_instance_uid=left[0][1],
                        data_set=left[0][2],
                    )
                    if answer.status != status.SUCCESS:
                        raise SystemExit(f"C-STORE was answered {answer.status:04X}: {answer.comment}")
                    yield left.pop(0)
        except PeerError:
            time.sleep(PAUSE_SECONDS)


def ask_for_ever(port: int, folder: Path, seed: int) -> None:
    """Query and retrieve what was acknowledged, and compare: what is missing or other is noted."""
    random.seed(seed)
    wrong, right = folder / f"wrong-{os.getpid()}", folder / f"right-{os.getpid()}"
    while True:
        known = lines(folder, "acknowledged")
        if known:
            asked = random.choice(known)[0]
            wanted = {line[1]: line[2] for line in known if line[0] == asked}
            with contextlib.suppress(PeerError):
                series = find(port, "SERIES", StudyInstanceUID=asked, SeriesInstanceUID="", Modality="")
                (images,) = [one.SeriesInstanceUID for one in series if one.Modality == "CT"]
                found = find(
                    port, "IMAGE", StudyInstanceUID=asked, SeriesInstanceUID=str(images), SOPInstanceUID=""
                )
                got = get_digests(
                    port, {made.CT_IMAGE_STORAGE: {SYNTAX}}, "SERIES",
                    StudyInstanceUID=asked, SeriesInstanceUID=str(images),
                )  # fmt: skip
                missing = set(wanted) - {str(one.SOPInstanceUID) for one in found}
                altered = {one for one, digest in wanted.items() if got.get(one, ("", ""))[1] != digest}
                note(wrong if missing | altered else right, *sorted(missing | altered), asked)
        time.sleep(PAUSE_SECONDS)


def hold_for_ever(port: int, folder: Path) -> None:
    """Be a PACS that notes each SOP Instance UID and its study before it answers."""
    held = folder / f"pacs-{os.getpid()}"

    def store(event: evt.Event) -> int:
        data_set = event.dataset
        note(held, str(data_set.StudyInstanceUID), str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    entity = AE(ae_title="PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), list(context.transfer_syntax))
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


def main(role: str, port: str, folder: str, *seed: str) -> None:
    """Be the peer of this role until it is killed."""
    match role:
        case "sender":
            send_for_ever(int(port), Path(folder), int(seed[0]))
        case "asker":
            ask_for_ever(int(port), Path(folder), int(seed[0]))
        case "pacs":
            hold_for_ever(int(port), Path(folder))
        case _:
            raise SystemExit(f"no peer is called {role}")


if __name__ == "__main__":
    main(*sys.argv[1:])
