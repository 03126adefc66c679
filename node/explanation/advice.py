"""What to do about each cause of a row of ``anode why``."""

from __future__ import annotations

from node.analysis_runs import INCOMPLETE
from node.errors import AnalysisParked

PARKED = AnalysisParked("").name
TWO_PATIENTS = "two-patients"

# What to do about each cause: one sentence, and the command that helps; {study}, {peer}, {analysis} and
# {options} are filled in.
RETRY = "anode retry --study {study}{options}"
AGAIN = "anode retry --study {study} --again{options}"
UNPARK = "anode retry --analysis {analysis}{options}"
ADVICE: dict[str, tuple[str, str]] = {
    "peer-unreachable": ("It is tried again by itself.", "anode echo {peer}{options}"),
    "association-aborted": ("It is tried again by itself.", "anode echo {peer}{options}"),
    "association-rejected": ("See whether the peer knows our AE title.", "anode echo {peer}{options}"),
    "peer-refused": ("Once the peer takes it, ask for another try.", RETRY),
    "no-accepted-context": ("Once the peer accepts this SOP class, ask for another try.", RETRY),
    "unknown-peer": ("Add the peer to the configuration and restart the node.", RETRY),
    INCOMPLETE: (
        "It may have been sent: look whether the peers that get results have it. If not, select again.",
        AGAIN,
    ),
    "not-a-volume": (
        "If slices are missing, send them: the analysis then runs again by itself. Series of another kind"
        " are left out by the analysis' 'when'.",
        "anode models{options}",
    ),
    "not-an-image": (
        "The model takes one image. Series of another kind are left out by the analysis' 'when'.",
        "anode models{options}",
    ),
    "unfit-input": (
        "Leave such series out in the analysis' 'when', or send what is fit or missing: the analysis then"
        " looks again by itself. After an earlier study that came later, select again.",
        AGAIN,
    ),
    "unsupported-pixel-data": (
        "The instances are kept as received, but their pixels cannot be decoded here.",
        "anode verify --study {study}{options}",
    ),
    "malformed-data-set": (
        "The header of an instance cannot be used. Correct it at the source and send it again.",
        "anode studies {study} --quarantine{options}",
    ),
    "model-crashed": ("Once the model, or what it lacks, is mended, ask for another try.", RETRY),
    "model-timed-out": ("If it needs longer, raise its timeout_seconds and restart the node.", RETRY),
    "model-out-of-memory": ("If it needs more, raise its memory_mb and restart the node.", RETRY),
    PARKED: ("Once that is mended, let the analysis run again.", UNPARK),
    TWO_PATIENTS: (
        "Correct the patient at the source, and send the study under a new Study Instance UID.",
        "anode studies {study} --names{options}",
    ),
    "integrity-failure": ("Stored bytes are damaged.", "anode verify --study {study}{options}"),
    "model-replaced": (
        "It is tried again, with the model that is there then. 'anode check' says whether it is whole.",
        RETRY,
    ),
    "process-died": ("It is tried again by itself. Where it dies each time, the log says how.", RETRY),
    "out-of-space": ("Free disk space.", "anode status{options}"),
}
