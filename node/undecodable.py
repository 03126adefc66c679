"""What pydicom and the codecs raise; a module of its own, as importing pydicom takes a command its time."""

from __future__ import annotations

import struct

from pydicom.errors import BytesLengthException, InvalidDicomError

#: Over bytes that are not what they claim to be.
UNDECODABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

#: Over bytes in memory, where no OSError tells of a disk: a sequence that ends too early raises one.
UNDECODABLE_IN_MEMORY = (OSError, *UNDECODABLE)
