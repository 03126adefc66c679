"""What a small deflated data set becomes when it is inflated lies on the disk, not in memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from pydicom import uid

from node.config.settings import LimitsConfig
from node.ingest.sameness import Copy, difference
from node.transcode.spool import IN_MEMORY_BYTES
from node.transcode.uncompressed import uncompressed
from tests.support import made

DEFLATED, EXPLICIT = str(uid.DeflatedExplicitVRLittleEndian), str(uid.ExplicitVRLittleEndian)
_FRAMES, _FRAME_BYTES = 45, 2_000_000


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """An image of 90 MB, deflated to less than a hundred kilobytes."""
    image = made.ct_image(NumberOfFrames=_FRAMES, Rows=1000, Columns=1000)
    del image.PixelData
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    parts = [deflate.compress(made.encoded(image, EXPLICIT))]
    parts.append(deflate.compress(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, _FRAMES * _FRAME_BYTES)))
    parts += [deflate.compress(bytes(_FRAME_BYTES)) for _ in range(_FRAMES)]
    return b"".join([*parts, deflate.flush()])


def compared(bomb: bytes) -> None:
    """The comparison of two copies, as when an instance comes again."""
    one, other = (Copy(io.BytesIO(copy), DEFLATED) for copy in (bomb, bomb))
    assert difference(one, other, LimitsConfig()) == ""


def made_uncompressed(bomb: bytes) -> None:
    """Sending to a peer that takes nothing deflated."""
    with uncompressed(io.BytesIO(bomb), DEFLATED, EXPLICIT) as file:
        assert file.seek(0, io.SEEK_END) > _FRAMES * _FRAME_BYTES


@pytest.mark.parametrize(("use", "files"), [(compared, 2), (made_uncompressed, 2)])
def test_memory_does_not_follow_what_is_inflated(
    bomb: bytes, use: Callable[[bytes], None], files: int
) -> None:
    """Each file of what is made takes the memory of a spool at most, and some for its pieces."""
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        use(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < files * IN_MEMORY_BYTES + 16 * 1024**2 < _FRAMES * _FRAME_BYTES
