"""Series in files, for analyses without a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from models.base import Need
from node.config.settings import LimitsConfig
from node.errors import AnodeError, TwoPatients, UnfitInput
from node.index import priors
from node.index.identity import Person, number_of_people
from node.index.priors import Told
from node.ingest import sameness
from node.sending import dicom_files
from node.series import source_series
from node.series.header_values import text, whole
from node.series.source_series import SourceInstance

_IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientName")


@dataclass
class FileSeries:
    """The instances of one series of one study, and the files that they are in."""

    series_instance_uid: str
    paths: list[Path] = field(default_factory=list)
    instances: list[SourceInstance] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    """Of which of its instances there is a file that says something else, and where that differs."""

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
    def began(self) -> tuple[str, str]:
        """When its study began, as of its first instance."""
        header = self.instances[0].header
        return priors.moment(text(header, "StudyDate"), text(header, "StudyTime"))

    @property
    def told(self) -> Told:
        """What its study says of the patient."""
        return Told(text(self.instances[0].header, "PatientSex").strip().upper(), (*self.people,))

    @property
    def people(self) -> set[Person]:
        """Every way in which its instances name the patient."""
        return {
            Person.of({keyword: text(one.header, keyword) for keyword in _IDENTITY}) for one in self.instances
        }


@dataclass(frozen=True)
class Found:
    """Every series, by Series Number, and the files of which none could be made, with the reason."""

    series: list[FileSeries]
    unusable: list[tuple[Path, str]]


def find(paths: Iterable[Path]) -> Found:
    """Read the headers of all DICOM files at ``paths`` and in the folders below; others are passed over.

    An instance that is there twice counts once; two that differ are a contradiction in the series of both.
    """
    series: dict[tuple[str, str], FileSeries] = {}
    unusable: list[tuple[Path, str]] = []
    seen: dict[str, tuple[Path, tuple[str, str]]] = {}
    contradictions: list[tuple[tuple[str, str], str]] = []
    for path in dicom_files.find(paths):
        try:
            instance = source_series.from_file(path)
        except dicom_files.NotDicom:
            continue
        except AnodeError as error:
            unusable.append((path, str(error)))
            continue
        key = text(instance.header, "StudyInstanceUID"), text(instance.header, "SeriesInstanceUID")
        if (uid := text(instance.header, "SOPInstanceUID")) in seen:
            first, its_key = seen[uid]
            if what := _difference(first, path):
                said = f"{first} and {path} have one SOP Instance UID, but {what}"
                contradictions += [(where, said) for where in {its_key, key}]
            continue
        seen[uid] = path, key
        one = series.setdefault(key, FileSeries(key[1]))
        one.paths.append(path)
        one.instances.append(instance)
    for key, said in contradictions:
        if key in series:
            series[key].contradictions.append(said)
    return Found(sorted(series.values(), key=lambda one: (one.number, one.series_instance_uid)), unusable)


def _difference(one: Path, other: Path) -> str:
    """In what two files of one instance differ; empty when they are the same, however each is encoded."""
    try:
        with ExitStack() as opened:
            copies = []
            for file in (dicom_files.read(one), dicom_files.read(other)):
                data_set = opened.enter_context(dicom_files.open_data_set(file))
                copies.append(sameness.Copy(data_set, file.transfer_syntax_uid))
            return sameness.difference(copies[0], copies[1], LimitsConfig())
    except AnodeError as error:
        return f"they cannot be compared: {error}"
    except OSError as error:
        return f"they cannot be compared: {error.strerror}"


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


def refuse_strangers(needs: Sequence[Need], given: Mapping[str, FileSeries]) -> None:
    """Refuse series that a node would not give to a model together; the first of ``needs`` is the primary.

    Raises
    ------
    TwoPatients
        when they are, or may be, of several people
    UnfitInput
        when one that is to be of the same study is not, or an earlier one is of the same study or later;
        or one is in contradiction with itself
    """
    for series in given.values():
        if found := series.contradictions:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise UnfitInput(f"{found[0]}{more}", action="leave out the files that are not meant")
    people = {person for one in given.values() for person in one.people}
    if (count := number_of_people(people)) > 1:
        raise TwoPatients(f"the files are of {count} patients, so they are not analysed together")
    if len(given) > 1 and not all(person.patient_id for person in people):
        raise TwoPatients(
            "some of the files have no Patient ID, so it is not known whether they are of one patient"
        )
    primary = given[needs[0].name]
    for need in needs[1:]:
        one = given.get(need.name)
        if one is None:
            continue
        is_same = one.study_instance_uid == primary.study_instance_uid
        if need.comes_from == "study" and not is_same:
            raise UnfitInput(f"the input '{need.name}' is of another study")
        if need.comes_from == "prior" and (is_same or not priors.is_earlier(one.began, primary.began)):
            raise UnfitInput(f"the input '{need.name}' is not of a study that is known to be earlier")
        if need.comes_from == "prior" and not priors.may_be_one(primary.told, one.told):
            raise TwoPatients(f"the input '{need.name}' may be of another patient, by sex or name")
