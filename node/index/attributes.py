"""Which attributes the index holds as columns, and at which level (PS3.4 section C.6).

A keyword that is added here becomes a column at the next start, empty for what was received before.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword


class QueryLevel(StrEnum):
    """Levels of the Query/Retrieve Information Models, from above (PS3.4 section C.3)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


LEVELS = tuple(QueryLevel)

#: Unique Key of each level (PS3.4 sections C.6.1.1 and C.6.2.1).
UNIQUE_KEYS = {
    QueryLevel.PATIENT: "PatientID",
    QueryLevel.STUDY: "StudyInstanceUID",
    QueryLevel.SERIES: "SeriesInstanceUID",
    QueryLevel.IMAGE: "SOPInstanceUID",
}

#: Keywords of the columns of each level. Those of IMAGE are few, as there are many instances: every
#: other plain attribute of an instance is found in its header, which is kept beside them.
KEYWORDS: dict[QueryLevel, tuple[str, ...]] = {
    QueryLevel.PATIENT: (
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "TypeOfPatientID",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientSex",
        "OtherPatientIDs",
        "OtherPatientNames",
        "PatientBirthName",
        "PatientMotherBirthName",
        "EthnicGroup",
        "PatientComments",
        "PatientAddress",
        "PatientTelephoneNumbers",
        "PatientReligiousPreference",
        "MilitaryRank",
        "BranchOfService",
        "CountryOfResidence",
        "RegionOfResidence",
        "ResponsiblePerson",
        "ResponsiblePersonRole",
        "ResponsibleOrganization",
        "PatientSpeciesDescription",
        "PatientBreedDescription",
        "QualityControlSubject",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
    ),
    QueryLevel.STUDY: (
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
        "ConsultingPhysicianName",
        "StudyDescription",
        "PhysiciansOfRecord",
        "NameOfPhysiciansReadingStudy",
        "RequestingPhysician",
        "RequestingService",
        "RequestedProcedureDescription",
        "AdmittingDiagnosesDescription",
        "AdmissionID",
        "IssuerOfAdmissionID",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "Occupation",
        "AdditionalPatientHistory",
        "MedicalAlerts",
        "Allergies",
        "SmokingStatus",
        "PregnancyStatus",
        "LastMenstrualDate",
        "PatientSexNeutered",
        "PatientState",
        "ReasonForStudy",
        "StudyComments",
    ),
    QueryLevel.SERIES: (
        "SeriesInstanceUID",
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "SeriesDate",
        "SeriesTime",
        "Laterality",
        "BodyPartExamined",
        "PatientPosition",
        "ProtocolName",
        "PerformingPhysicianName",
        "OperatorsName",
        "FrameOfReferenceUID",
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "StationName",
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "PerformedProcedureStepID",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepEndDate",
        "PerformedProcedureStepEndTime",
        "PerformedProcedureStepDescription",
        "CommentsOnThePerformedProcedureStep",
        "RequestedProcedureID",
        "ScheduledProcedureStepID",
        "PresentationIntentType",
        "ScanningSequence",
        "SequenceVariant",
        "SequenceName",
        "ContrastBolusAgent",
        "SmallestPixelValueInSeries",
        "LargestPixelValueInSeries",
    ),
    QueryLevel.IMAGE: (
        "SOPInstanceUID",
        "SOPClassUID",
        "InstanceNumber",
        "ContentDate",
        "ContentTime",
        "AcquisitionDate",
        "AcquisitionTime",
        "AcquisitionDateTime",
        "AcquisitionNumber",
        "ImageType",
        "Rows",
        "Columns",
        "NumberOfFrames",
        "BitsAllocated",
        "ContainerIdentifier",
    ),
}

# These two say who a patient is, and belong to the row of the patient alone.
IDENTITY_KEYWORDS = ("PatientID", "IssuerOfPatientID")
#: Keywords of the columns of each table. A study keeps what its own instances say of the patient: a
#: patient is put together from several studies, whose words need not agree.
COLUMNS: dict[QueryLevel, tuple[str, ...]] = {
    **KEYWORDS,
    QueryLevel.STUDY: (
        *KEYWORDS[QueryLevel.STUDY],
        *(keyword for keyword in KEYWORDS[QueryLevel.PATIENT] if keyword not in IDENTITY_KEYWORDS),
    ),
}

LEVEL_OF = {keyword: level for level, keywords in KEYWORDS.items() for keyword in keywords}

#: Person names with one value: matched through columns of their folded component groups.
NAME_COLUMNS = ("alphabetic", "ideographic", "phonetic")

# Their values are text that may hold a backslash (PS3.5 section 6.2).
_UNDIVIDED_VRS = frozenset({"LT", "ST", "UT", "UR"})


@cache
def value_representation(keyword: str) -> str:
    """Value representation of a keyword of PS3.6; empty when there is no such keyword."""
    tag = tag_for_keyword(keyword)
    return "" if tag is None else dictionary_VR(tag).split(" or ")[0]


@cache
def has_many_values(keyword: str) -> bool:
    """Whether PS3.6 allows more than one value."""
    tag = tag_for_keyword(keyword)
    return tag is not None and not is_undivided(value_representation(keyword)) and dictionary_VM(tag) != "1"


def is_undivided(vr: str) -> bool:
    """Whether a backslash is no separator in values of this value representation."""
    return vr in _UNDIVIDED_VRS


def folded_columns(keyword: str) -> tuple[str, ...]:
    """Names of the columns by which a person name with one value is matched; none for all others."""
    if value_representation(keyword) != "PN" or has_many_values(keyword):
        return ()
    return tuple(f"{keyword}_{group}" for group in NAME_COLUMNS)
