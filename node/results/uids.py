"""UIDs that follow from what they name: the same run, repeated, gives the same UIDs.

They are UUID-derived (PS3.5 section B.2): ``2.25.`` and the decimal form of a UUID, here the first
128 bits of a SHA-256 in the shape of a version 8 UUID (RFC 9562).
"""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import metadata

from node.results.facts import RunFacts, Source

#: Changes whenever the same findings would be encoded otherwise, so that no UID is used twice.
ENCODING_VERSION = 3


def derived_uid(*parts: str) -> str:
    """Return the UID that belongs to ``parts``; at most 44 characters."""
    digest = bytearray(hashlib.sha256(_joined(parts)).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return f"2.25.{int.from_bytes(digest, 'big')}"


def run_uid(what: str, source: Source, run: RunFacts) -> str:
    """Return the UID of ``what`` (``"sr"``, ``"seg series"``, ...) that this run makes.

    It follows from the input, the model with its version, weights and parameters and the words of its card,
    the analysis, the kinds of results that are made together, the frozen start of the run, the report that
    it supersedes and the release of anode: from all that the content depends on, so that no UID is ever given
    to other content, and a repeated job gives the same.
    """
    predecessor = run.predecessor.sop_instance_uid if run.predecessor else ""
    parameters = json.dumps(dict(run.parameters), sort_keys=True)
    first = source.data_sets[0]
    return derived_uid(
        "result",
        str(ENCODING_VERSION),
        what,
        str(first.get("StudyInstanceUID", "")),
        str(first.get("SeriesInstanceUID", "")),
        source.input_digest,
        run.analysis,
        run.card.manufacturer,
        run.card.name,
        run.card.version,
        run.card.title,
        json.dumps([run.card.family.value, run.card.family.scheme, run.card.family.meaning]),
        run.weights,
        parameters,
        run.started_at.isoformat(),
        predecessor,
        ",".join(sorted(set(run.kinds))),
        node_version(),
    )


def tracking_uid(study_instance_uid: str, series_instance_uid: str, analysis: str, name: str) -> str:
    """Return the Tracking Unique Identifier of a thing found, the same in every run over the series.

    The series is the one that the analysis was started for: what another of the study shows under the same
    name may be another thing.
    """
    return derived_uid("tracking", study_instance_uid, series_instance_uid, analysis, name)


def device_uid(manufacturer: str, model: str, version: str, weights_sha256: str) -> str:
    """Return the Device UID of an algorithm: another version or other weights are another device."""
    return derived_uid("device", manufacturer, model, version, weights_sha256)


def frame_of_reference_uid(series_instance_uid: str) -> str:
    """Return a Frame of Reference UID for a series that came without one."""
    return derived_uid("frame of reference", series_instance_uid)


@functools.cache
def node_version() -> str:
    """Return the installed version of anode."""
    return metadata.version("anode")


def _joined(parts: tuple[str, ...]) -> bytes:
    # Lengths go in too, so that no two lists of parts run together to the same bytes.
    return b"".join(b"%d:%s" % (len(raw), raw) for raw in (part.encode() for part in parts))
