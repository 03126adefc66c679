"""DIMSE status codes by name (PS3.7 annex C, PS3.4 annexes B, C and J)."""

from __future__ import annotations

SUCCESS = 0x0000

# PS3.7 annex C: general
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_ARGUMENT_VALUE = 0x0115
NO_SUCH_EVENT_TYPE = 0x0113
NO_SUCH_SOP_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION_TYPE = 0x0123
NOT_AUTHORISED = 0x0124
DUPLICATE_INVOCATION = 0x0210
UNRECOGNISED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213

# PS3.4 table B.2-1: C-STORE
STORE_OUT_OF_RESOURCES = 0xA700
STORE_DATA_SET_MISMATCH = 0xA900
STORE_CANNOT_UNDERSTAND = 0xC000
STORE_CONFLICTING_INSTANCE = 0xC001
STORE_LIMIT_EXCEEDED = 0xC002
STORE_COERCED = 0xB000

# PS3.4 tables C.4-1 to C.4-3: C-FIND, C-MOVE, C-GET
PENDING = 0xFF00
PENDING_KEY_UNSUPPORTED = 0xFF01
CANCEL = 0xFE00
QUERY_OUT_OF_RESOURCES = 0xA700
RETRIEVE_CANNOT_COUNT = 0xA701
RETRIEVE_CANNOT_PERFORM = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_MISMATCH = 0xA900
UNABLE_TO_PROCESS = 0xC000
SUB_OPERATIONS_WARNING = 0xB000

# PS3.4 table J.3-2 / PS3.3 C.14: Failure Reason of storage commitment
COMMIT_PROCESSING_FAILURE = 0x0110
COMMIT_NO_SUCH_INSTANCE = 0x0112
COMMIT_RESOURCE_LIMITATION = 0x0213
COMMIT_CLASS_INSTANCE_CONFLICT = 0x0119

_STORE_REFUSED_FOR_GOOD = frozenset(
    {
        NO_SUCH_SOP_CLASS,
        CLASS_INSTANCE_CONFLICT,
        SOP_CLASS_NOT_SUPPORTED,
        NOT_AUTHORISED,
        UNRECOGNISED_OPERATION,
        MISTYPED_ARGUMENT,
    }
)


def is_warning(status: int) -> bool:
    """Whether ``status`` means done, with a remark (PS3.7 section C.3)."""
    return status in (0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000


def is_store_warning(status: int) -> bool:
    """Whether ``status`` of a C-STORE means stored, with a remark (PS3.4 table B.2-1): Bxxx alone.

    The other warnings of PS3.7 annex C belong to DIMSE-N services, and promise nothing here.
    """
    return status & 0xF000 == 0xB000


def is_store_refused_for_good(status: int) -> bool:
    """Whether ``status`` of a C-STORE would come again, however often the same instance is sent.

    A9xx and Cxxx find fault with the data set, A8xx is kept by older peers for the same, and some of
    PS3.7 annex C with the request; all else (A7xx, 0110, what is not known) may pass.
    """
    is_of_the_data_set = status & 0xF000 == 0xC000 or (
        status & 0xF000 == 0xA000 and status & 0xFF00 != STORE_OUT_OF_RESOURCES
    )
    return is_of_the_data_set or status in _STORE_REFUSED_FOR_GOOD


def is_pending(status: int) -> bool:
    """Whether more responses follow (PS3.7 section C.1)."""
    return status in (PENDING, PENDING_KEY_UNSUPPORTED)
