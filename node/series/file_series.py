"""Series in files, for analyses without a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.errors import AnodeError, TwoPatients, UnfitInput
from node.sending import dicom_files
from node.series import source_series
from node.series.header_values import text, whole
from node.series.source_series import SourceInstance


@dataclass
class FileSeries:
    """The instances of one series, and the files that they are in."""

    series_instance_uid: str
    paths: list[Path] = field(default_factory=list)
    instances: list[SourceInstance] = field(default_factory=list)

    @property
    def modality(self) -> str:
        """Modality of its first instance."""
        return text(self.instances[0].header, "Modality")

    @property
    def number(self) -> int:
        """Series Number of its first instance, 0 when it has none."""
        return whole(self.instances[0].header, "SeriesNumber", 0)

    @property
    def study_instance_uid(self) -> str:
        """The study that it is in."""
        return text(self.instances[0].header, "StudyInstanceUID")

    @property
    def patients(self) -> set[tuple[str, str]]:
        """(Issuer of Patient ID, Patient ID) of its instances."""
        return {
            (text(one.header, "IssuerOfPatientID"), text(one.header, "PatientID")) for one in self.instances
        }


@dataclass(frozen=True)
class Found:
    """Every series, by Series Number, and the files of which none could be made, with the reason."""

    series: list[FileSeries]
    unusable: list[tuple[Path, str]]


def find(paths: Iterable[Path]) -> Found:
    """Read the headers of all DICOM files at ``paths`` and in the folders below; others are passed over.

    An instance that is there twice counts once.
    """
    series: dict[str, FileSeries] = {}
    unusable: list[tuple[Path, str]] = []
    seen: set[str] = set()
    for path in dicom_files.find(paths):
        try:
            instance = source_series.from_file(path)
        except dicom_files.NotDicom:
            continue
        except AnodeError as error:
            unusable.append((path, str(error)))
            continue
        if (uid := text(instance.header, "SOPInstanceUID")) in seen:
            continue
        seen.add(uid)
        series_uid = text(instance.header, "SeriesInstanceUID")
        one = series.setdefault(series_uid, FileSeries(series_uid))
        one.paths.append(path)
        one.instances.append(instance)
    return Found(sorted(series.values(), key=lambda one: (one.number, one.series_instance_uid)), unusable)


def only(paths: Iterable[Path], what: str) -> FileSeries:
    """Return the one series at ``paths``.

    Raises
    ------
    UnfitInput
        when there is none, or more than one; ``what`` says of what
    """
    found = find(paths).series
    if len(found) != 1:
        raise UnfitInput(f"{what}: {len(found) or 'no'} series are there, and one is needed")
    return found[0]


def refuse_two_patients(given: Sequence[FileSeries]) -> None:
    """Refuse series of which not all are of one patient, or of nobody by name beside another.

    Raises
    ------
    TwoPatients
        saying how many there are
    """
    patients = {patient for one in given for patient in one.patients}
    if len(patients) > 1:
        raise TwoPatients(f"the files are of {len(patients)} patients, so they are not analysed together")
    if len(given) > 1 and any(not patient_id for _, patient_id in patients):
        raise TwoPatients("the files have no Patient ID, so nobody knows whether they are of one patient")
