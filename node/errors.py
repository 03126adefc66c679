"""Every error that anode raises, in one tree, split by who has to act.

An error knows no DIMSE status: ``handlers/boundary.py`` maps each class to a
status once. ``name`` is the stable, kebab-case word that ``anode why``,
``--json`` output and the job table show; ``action`` says what a person can do.
"""

from __future__ import annotations

import re


class AnodeError(Exception):
    """Root of the tree. ``str(error)`` says what is wrong, ``action`` what to do."""

    action: str = ""

    def __init__(self, message: str, *, action: str | None = None) -> None:
        super().__init__(message)
        if action is not None:
            self.action = action

    @property
    def name(self) -> str:
        """The class name in kebab-case, stable: ``not-a-volume``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()


# --- the operator acts -------------------------------------------------------


class ConfigurationError(AnodeError):
    """The configuration cannot be used; ``problems`` lists every fault with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class WrongUsage(AnodeError):
    """A command was called with arguments that do not fit the configuration or each other."""


class WeightsNotFetched(AnodeError):
    """The files of a model that come in a package could not be fetched, or are not those that were pinned."""


class UnknownStudy(AnodeError):
    """No study, or more than one, goes by what the operator named."""


class UnknownInstance(AnodeError):
    """No instance, or more than one, goes by what the operator named."""


# --- the sender of the object acts -------------------------------------------


class ObjectError(AnodeError):
    """The SOP instance itself cannot be accepted or used."""


class MalformedDataSet(ObjectError):
    """The data set cannot be parsed, is truncated, or lacks what it needs."""


class InvalidUid(ObjectError):
    """A UID is missing, too long or has a character that PS3.5 section 9.1 does not allow."""


class CommandMismatch(ObjectError):
    """SOP Class or Instance UID of the data set differ from those of the command."""


class LimitExceeded(ObjectError):
    """The object is larger, deeper or more numerous than the configuration allows."""


class ConflictingInstance(ObjectError):
    """Other content is already held under this SOP Instance UID; the new one is in quarantine."""


class IdentifierInvalid(ObjectError):
    """The Identifier of a query or retrieval does not fit the information model (PS3.4 section C.4)."""


class UnsupportedPixelData(ObjectError):
    """The pixels cannot be decoded or encoded here; the instance stays as received."""


class NotAVolume(ObjectError):
    """The series is no volume: its geometry is refused by name."""


class NotAnImage(ObjectError):
    """The series is not the one image that the model takes: none, several, or without what it needs."""


class UnfitInput(ObjectError):
    """The model refuses the input, or a further input is missing; another try would say the same."""


class RefusedByModel(UnfitInput):
    """The model itself looked at the input, and refuses it."""

    @property
    def name(self) -> str:
        """What any input that is unfit is called."""
        return "unfit-input"


class ResultImpossible(ObjectError):
    """The source cannot hold what was found: its class or its geometry has no room for it."""


class TwoPatients(ObjectError):
    """The study holds instances of more than one patient, so it is not analysed."""


# --- the node or its machine acts --------------------------------------------


class NodeError(AnodeError):
    """The node itself, its disk or its database is at fault."""


class OutOfSpace(NodeError):
    """Free space is below the reserve, or the disk is full."""

    action = "free disk space; receiving resumes by itself"


class ModelReplaced(NodeError):
    """The files of a model were replaced while a run of it was under way, which another run is to repeat."""

    action = "it is tried again by itself, with what is there then"


class ProcessDied(NodeError):
    """A process that works for the node ended in the middle of its work."""

    action = (
        "it is tried again by itself; where it dies each time, look in the log for 'process of an analysis'"
    )


class StorageFailure(NodeError):
    """Bytes could not be written or read back."""


class TransientFailure(StorageFailure):
    """Bytes could not be reached for now; it says nothing on whether they are there and good."""


class IntegrityFailure(NodeError):
    """Stored bytes are not those that were acknowledged."""

    action = "run 'anode verify'; restore the file from a backup or send the instance again"


class ArchiveUnavailable(NodeError):
    """The data directory is locked, newer than this anode, or not the one that was here."""


class DatabaseFailure(NodeError):
    """The index database cannot be used."""


class IndexDamaged(DatabaseFailure):
    """The index database is damaged, or its file is gone."""

    action = (
        "stop the node and run 'anode rebuild', which makes the index again from the archive and the "
        "receive log and deletes nothing; or restore it from a backup"
    )


class AlreadyIndexed(NodeError):
    """The index holds an instance of this SOP Instance UID; the new one was not added."""


class PortInUse(NodeError):
    """The configured port cannot be bound."""


# --- the peer acts -----------------------------------------------------------


class PeerError(AnodeError):
    """Another Application Entity did not do its part."""


class UnknownPeer(PeerError):
    """The AE title is not in the configuration."""


class PeerUnreachable(PeerError):
    """No connection, or it was lost, or the peer did not answer in time."""


class AssociationRejected(PeerError):
    """The peer rejected the association (PS3.8 section 9.3.4)."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class AssociationAborted(PeerError):
    """The association ended by A-ABORT, A-P-ABORT or a broken connection."""


class ProtocolViolation(PeerError):
    """The peer sent what PS3.7 or PS3.8 does not allow at this point."""


class NoAcceptedContext(PeerError):
    """The peer accepted no presentation context for this SOP class and transfer syntax."""


class PeerRefused(PeerError):
    """The peer answered a request with a failure status.

    ``status`` is the DIMSE status, ``comment`` the peer's Error Comment.
    """

    def __init__(self, message: str, *, status: int, comment: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.comment = comment


class ConfirmationMissing(PeerError):
    """The peer was asked for storage commitment and has not reported, or says it does not hold all."""


# --- the author or configurer of an analysis acts ----------------------------


class JobError(AnodeError):
    """A job cannot be done."""


class ModelCrashed(JobError):
    """The model raised, or its process died."""


class ModelUnusable(JobError):
    """The model cannot be loaded: its folder, its package or what it needs is not as it has to be."""

    action = "mend its folder or package ('anode models check' says what is wrong), then run 'anode retry'"


class ModelTimedOut(JobError):
    """The model did not finish in the configured time."""


class ModelOutOfMemory(JobError):
    """The model needed more memory than the configuration allows."""


class ModelNotConfined(JobError):
    """The system does not permit to keep the model from the network or from the node, so it did not run."""


class ResultInvalid(JobError):
    """A result object failed its check and was not sent."""


class AnalysisParked(JobError):
    """The analysis failed again and again, so its jobs wait until an operator has looked."""

    action = "find out why it failed, then run 'anode retry --analysis' with its name"


class LeaseLost(JobError):
    """The job was given to another worker meanwhile; this outcome of it is refused."""


class UnexpectedFailure(JobError):
    """A task failed in a way that it did not foresee; the log says where."""

    action = "look in the log for 'task failed', then run 'anode retry'"


class RestoredFromBackup(JobError):
    """What the job does may have been done already, by the node that the backup was made of."""

    action = "if it was not, run 'anode retry' with its number, or with --all"


class NodeDied(JobError):
    """The node ended without a stop, again and again, while this job ran."""

    action = "find out why the node died, then run 'anode retry'"
