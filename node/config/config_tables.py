"""Which keys the tables of ``config.toml`` have, and what reads the value of each.

``when`` is not among them: it is read key by key, and so are the tables within a table.
"""

from __future__ import annotations

from typing import Any, get_args

from node.config import peer_values
from node.config.config_values import (
    Reader,
    ae_title,
    boolean,
    choice,
    name,
    number,
    one_or_several,
    several,
    syslog_address,
    text,
    whole,
)
from node.config.settings import (
    AuditConfig,
    CodecName,
    Device,
    JobsConfig,
    LimitsConfig,
    LogConfig,
    NodeConfig,
    ResultKind,
    StorageConfig,
    StudyConfig,
    TranscodeConfig,
    Verb,
    VerifyConfig,
)

VERBS: tuple[str, ...] = get_args(Verb)
_KINDS: tuple[str, ...] = get_args(ResultKind)
_DEVICES: tuple[str, ...] = get_args(Device)
_PEER_NAMES = several(ae_title, "peer", may_be_empty=True)
_ASSOCIATIONS = whole(1, 10_000)
_PDU_BYTES = whole(4096, 16 * 1024**2)
#: No machine has more, and a slip of the finger does.
_MEMORY_MB = whole(0, 16 * 1024**2)
_CODECS: tuple[str, ...] = get_args(CodecName)
_CHOICE = choice("keep", *_CODECS, "best")

TABLES: dict[str, tuple[type[Any], dict[str, Reader]]] = {
    "node": (
        NodeConfig,
        {
            "ae_title": ae_title,
            "host": text,
            "port": whole(0, 65535),
            "data_dir": text,
            "accept_unknown_peers": boolean,
            "check_called_ae_title": boolean,
            "accept_unknown_sop_classes": boolean,
            "stop_grace_seconds": number(0),
        },
    ),
    "limits": (
        LimitsConfig,
        {
            "associations": _ASSOCIATIONS,
            "associations_per_peer": _ASSOCIATIONS,
            "max_pdu_bytes": _PDU_BYTES,
            "network_timeout_seconds": number(0, above=True),
            "artim_timeout_seconds": number(0, above=True),
            "instance_bytes": whole(1024),
            "header_bytes": whole(1024),
            "nesting_depth": whole(1, 200),
            "identifier_bytes": whole(1024),
            "association_seconds": number(0),
            "element_bytes": whole(1024**2),
            "frame_bytes": whole(1024**2),
        },
    ),
    "storage": (
        StorageConfig,
        {
            "segment_bytes": whole(1024**2, 16 * 1024**3),
            "spare_segments": whole(1, 1024),
            "free_space_reserve_bytes": whole(0),
        },
    ),
    "transcode": (
        TranscodeConfig,
        {
            "to": _CHOICE,
            "codecs": several(choice(*_CODECS), "codec"),
            "deflate_bytes": whole(0),
            "decoded_cache_bytes": whole(0),
        },
    ),
    "verify": (VerifyConfig, {"every_days": number(0), "sample_percent": number(0, 100)}),
    "study": (StudyConfig, {"quiet_seconds": number(0)}),
    "jobs": (
        JobsConfig,
        {
            "workers": whole(1, 256),
            "analyses": whole(1, 64),
            "tries": whole(1, 1000),
            "window_seconds": number(0),
            "timeout_seconds": number(0, above=True),
            "memory_mb": _MEMORY_MB,
            "delivery_days": number(0),
            "delivery_retry_max_seconds": number(0, above=True),
            "delivery_retry_first_seconds": number(0, above=True),
            "keep_done_days": number(0),
        },
    ),
    "audit": (
        AuditConfig,
        {
            "enabled": boolean,
            "keep_days": number(0, above=True),
            "keep_bytes": whole(1024**2),
            "syslog": syslog_address,
            "ca": text,
            "source_id": name,
            "site_id": name,
        },
    ),
    "log": (
        LogConfig,
        {"level": choice("DEBUG", "INFO", "WARNING", "ERROR"), "format": choice("text", "json")},
    ),
}

TLS: dict[str, Reader] = {
    "port": whole(0, 65535),
    "host": text,
    "certificate": text,
    "key": text,
    "ca": text,
    "crl": text,
    "verify_peers": boolean,
}
PEER: dict[str, Reader] = {
    "ae_title": ae_title,
    "host": text,
    "port": whole(1, 65535),
    "allow": several(choice(*VERBS), "verb", may_be_empty=True),
    "confirm_results": boolean,
    "tls": boolean,
    "tls_check_host_name": boolean,
    "tls_ca": text,
    "tls_certificate": text,
    "tls_key": text,
    "addresses": peer_values.calling_addresses,
    "require_tls": boolean,
    "certificate_names": peer_values.certificate_names,
    "certificate_sha256": peer_values.fingerprints,
    "associations": _ASSOCIATIONS,
    "network_timeout_seconds": number(0, above=True),
    "max_pdu_bytes": _PDU_BYTES,
    "transfer_syntaxes": peer_values.transfer_syntaxes,
    "send_transfer_syntaxes": peer_values.sent_transfer_syntaxes,
}
ROUTE: dict[str, Reader] = {"send_to": several(ae_title, "peer")}  # ``when`` is read key by key
RULE: dict[str, Reader] = {"to": _CHOICE}  # and ``when``
ANALYSIS: dict[str, Reader] = {
    "name": name,
    "model": text,
    "results": several(choice(*_KINDS), "kind of result"),
    "send_to": _PEER_NAMES,
    "quiet_seconds": number(0),
    "after": one_or_several(name, "analysis"),
    "timeout_seconds": number(0, above=True),
    "memory_mb": _MEMORY_MB,
    "device": choice(*_DEVICES, meant={"gpu": "cuda"}),
    "allow_network": boolean,
}
ANALYSIS_TABLES = ("when", "parameters", "inputs", "priors")
ARRAYS = {"peers": PEER, "routes": ROUTE, "analyses": ANALYSIS, "transcode.rules": RULE}
