"""A small receiving PACS, on pynetdicom alone: it shares no code with the node it judges."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt


@dataclass(frozen=True)
class HeldObject:
    """One object that the PACS holds."""

    path: Path
    modality: str
    sop_class: str
    description: str
    study_instance_uid: str
    bytes: int


class SmallPacs:
    """Stores what it is sent as Part 10 files in ``folder``; ``port`` is a free one."""

    ae_title = "PACS"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._held: list[HeldObject] = []
        entity = AE(ae_title=self.ae_title)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(
                str(context.abstract_syntax), [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
            )
        entity.add_supported_context("1.2.840.10008.1.1")
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port: int = self._server.socket.getsockname()[1]

    def held(self) -> list[HeldObject]:
        """What has arrived so far, in order of arrival."""
        with self._lock:
            return list(self._held)

    def stop(self) -> None:
        """Stop listening; the files stay."""
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        data_set: Dataset = event.dataset
        data_set.file_meta = event.file_meta
        path = self._folder / f"{len(self._held) + 1:03}-{data_set.Modality}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        stored = dcmread(path, stop_before_pixels=True)
        with self._lock:
            self._held.append(
                HeldObject(
                    path,
                    str(stored.Modality),
                    stored.SOPClassUID.name,
                    str(stored.get("SeriesDescription", "")),
                    str(stored.StudyInstanceUID),
                    path.stat().st_size,
                )
            )
        return 0x0000
