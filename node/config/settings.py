"""What the operator may configure: frozen dataclasses with a safe default for every key.

``node/config/config_file.py`` reads ``config.toml`` into these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from models.types import ParameterValue  # loads numpy

CodecName = Literal[
    "rle",
    "jpeg-lossless",
    "jpeg-lossless-p14",
    "jpeg-ls",
    "jpeg2000",
    "htj2k",
    "htj2k-rpcl",
    "jpeg-xl",
    "deflated-frame",
]
#: What the value of an attribute, or a result, has to match: one pattern, or any of several.
Pattern = str | tuple[str, ...]
Patterns = Mapping[str, Pattern]
TransferSyntaxChoice = CodecName | Literal["keep", "best"]
Verb = Literal["store", "query", "retrieve", "commit"]
#: Structured Report, Segmentation (or one with a label map), Secondary Capture, derived images, Parametric
#: Map, Registration, Presentation State, RT Structure Set.
ResultKind = Literal["sr", "seg", "labelmap", "sc", "image", "pm", "reg", "pr", "rtstruct"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class TlsConfig:
    """``[node.tls]``: a listener for TLS beside the plain one, and how associations use TLS.

    Without ``port`` there is no listener, without ``host`` it has that of ``[node]``. The certificate
    is also what we show to the peers that we call. ``verify_peers``: every peer, in both directions,
    must show a certificate that ``ca`` vouches for, and that no list of ``crl`` revokes.
    """

    port: int | None = None
    host: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    crl: Path | None = None
    verify_peers: bool = True


@dataclass(frozen=True)
class NodeConfig:
    """``[node]``: who this node is and whom it lets in."""

    ae_title: str = "ANODE"
    host: str = "127.0.0.1"
    port: int = 11112
    data_dir: Path = Path("data")
    accept_unknown_peers: bool = True
    check_called_ae_title: bool = True
    accept_unknown_sop_classes: bool = False
    stop_grace_seconds: float = 5.0
    tls: TlsConfig | None = None

    @property
    def tls_host(self) -> str:
        """The address on which the listener for TLS stands, where there is one."""
        return (self.tls.host if self.tls is not None else None) or self.host


@dataclass(frozen=True)
class LimitsConfig:
    """``[limits]``: what one peer or one object may cost.

    ``association_seconds`` = 0 is no limit. ``element_bytes`` is for one element that is no Pixel Data,
    ``frame_bytes`` for one decoded frame.
    """

    associations: int = 64
    associations_per_peer: int = 32
    max_pdu_bytes: int = 131072
    network_timeout_seconds: float = 60.0
    artim_timeout_seconds: float = 30.0
    instance_bytes: int = 8 * 1024**3
    header_bytes: int = 64 * 1024**2
    nesting_depth: int = 32
    identifier_bytes: int = 1024**2
    association_seconds: float = 86400.0
    element_bytes: int = 1024**3
    frame_bytes: int = 1024**3


@dataclass(frozen=True)
class StorageConfig:
    """``[storage]``: the receive log and the disk."""

    segment_bytes: int = 64 * 1024**2
    spare_segments: int = 32
    free_space_reserve_bytes: int = 1024**3


@dataclass(frozen=True)
class TranscodeRule:
    """``[[transcode.rules]]``: another ``to`` for the instances that match."""

    to: TransferSyntaxChoice
    when: Patterns = field(default_factory=dict)


@dataclass(frozen=True)
class TranscodeConfig:
    """``[transcode]``: how instances are stored, and what is kept of those that were decoded.

    ``codecs`` are those among which ``best`` chooses. The first of ``rules`` that matches an instance
    counts in place of ``to``. Data sets without pixels of at least ``deflate_bytes`` are stored deflated;
    0 is never.
    """

    to: TransferSyntaxChoice = "jpeg-ls"
    codecs: tuple[CodecName, ...] = (
        "rle",
        "jpeg-lossless",
        "jpeg-ls",
        "jpeg2000",
        "htj2k",
        "deflated-frame",
    )
    deflate_bytes: int = 0
    decoded_cache_bytes: int = 256 * 1024**2
    rules: tuple[TranscodeRule, ...] = ()


@dataclass(frozen=True)
class VerifyConfig:
    """``[verify]``: a part of the archive is proven again by itself; ``every_days`` = 0 is never."""

    every_days: float = 7.0
    sample_percent: float = 2.0


@dataclass(frozen=True)
class StudyConfig:
    """``[study]``: when a study is complete."""

    quiet_seconds: float = 60.0


@dataclass(frozen=True)
class JobsConfig:
    """``[jobs]``: how hard the node tries.

    Work (settle, select, analyze, commit) gets ``tries`` tries spread over ``window_seconds``;
    delivery is retried for ``delivery_days`` with pauses of at most
    ``delivery_retry_max_seconds``. ``memory_mb`` = 0 is no limit.
    """

    workers: int = 2
    analyses: int = 1
    tries: int = 5
    window_seconds: float = 3600.0
    timeout_seconds: float = 1800.0
    memory_mb: int = 0
    delivery_days: float = 7.0
    delivery_retry_max_seconds: float = 900.0
    delivery_retry_first_seconds: float = 5.0
    keep_done_days: float = 30.0


@dataclass(frozen=True)
class LogConfig:
    """``[log]``: how the node speaks."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True)
class SyslogAddress:
    """Where syslog messages go: ``udp://host:514``, ``tcp://host:601`` or ``tls://host:6514``."""

    transport: Literal["udp", "tcp", "tls"]
    host: str
    port: int


@dataclass(frozen=True)
class AuditConfig:
    """``[audit]``: the audit trail (PS3.15 section A.5), in ``data_dir/audit`` and by syslog.

    ``ca`` vouches for the receiver over TLS; the default is that of ``[node.tls]``. ``source_id`` is the
    AuditSourceID, by default the AE title; ``site_id`` is the AuditEnterpriseSiteID.
    """

    enabled: bool = True
    keep_days: float = 400.0
    keep_bytes: int = 4 * 1024**3
    syslog: SyslogAddress | None = None
    ca: Path | None = None
    source_id: str = ""
    site_id: str = ""


@dataclass(frozen=True)
class PeerConfig:
    """``[[peers]]``: another Application Entity.

    ``confirm_results`` asks the peer for storage commitment of what was delivered; the default
    is whether ``commit`` is among ``allow``. With ``tls`` it is called over TLS, and with
    ``tls_check_host_name`` its certificate must be one for ``host``; ``tls_ca``, ``tls_certificate`` and
    ``tls_key`` then count in place of those of ``[node.tls]``.

    Without ``host`` and ``port`` it only calls us. It may call from ``addresses``, which are ``host``
    where there are none; with ``require_tls`` over TLS alone; and over TLS with one of the certificates
    of ``certificate_names`` and ``certificate_sha256``, where there are any. What is None is as in
    ``[limits]``. No transfer syntaxes (UIDs) stand for all.
    """

    ae_title: str
    host: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()
    allow: tuple[Verb, ...] = ("store", "query", "retrieve", "commit")
    confirm_results: bool = True
    tls: bool = False
    tls_check_host_name: bool = True
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    require_tls: bool = False
    certificate_names: tuple[str, ...] = ()
    certificate_sha256: tuple[str, ...] = ()
    associations: int | None = None
    network_timeout_seconds: float | None = None
    max_pdu_bytes: int | None = None
    transfer_syntaxes: tuple[str, ...] = ()
    send_transfer_syntaxes: tuple[str, ...] = ()

    @property
    def can_be_called(self) -> bool:
        """Whether it is known where it listens."""
        return bool(self.host)


@dataclass(frozen=True)
class RouteConfig:
    """``[[routes]]``: received instances that are forwarded as they are."""

    when: Patterns = field(default_factory=dict)
    send_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalysisConfig:
    """``[[analyses]]``: a model, the series it sees, and where its results go.

    Attributes
    ----------
    model
        the name of one that is built in or installed, or a folder with ``analysis.toml`` (absolute)
    when
        attributes, and results of analyses that ``after`` names (``ANALYSIS.NAME``), to patterns
    after
        analyses whose runs on the study have to be over first
    parameters
        a value for each parameter of the model that is not as it is by default
    inputs, priors
        which series the model's further inputs are, of the same study and of an earlier one: the name
        of the input to patterns of attributes
    timeout_seconds, memory_mb, quiet_seconds
        None is as in ``[jobs]`` and ``[study]``
    allow_network
        whether the model's process may use the network
    """

    name: str
    model: str
    when: Patterns = field(default_factory=dict)
    results: tuple[ResultKind, ...] = ("sr", "seg", "sc", "image", "pm", "reg")
    send_to: tuple[str, ...] = ()
    quiet_seconds: float | None = None
    after: tuple[str, ...] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    inputs: Mapping[str, Patterns] = field(default_factory=dict)
    priors: Mapping[str, Patterns] = field(default_factory=dict)
    timeout_seconds: float | None = None
    memory_mb: int | None = None
    device: Device = "auto"
    allow_network: bool = False


@dataclass(frozen=True)
class Config:
    """The whole configuration; ``source`` is the file, or None for defaults alone."""

    node: NodeConfig = NodeConfig()
    limits: LimitsConfig = LimitsConfig()
    storage: StorageConfig = StorageConfig()
    transcode: TranscodeConfig = TranscodeConfig()
    verify: VerifyConfig = VerifyConfig()
    study: StudyConfig = StudyConfig()
    jobs: JobsConfig = JobsConfig()
    log: LogConfig = LogConfig()
    audit: AuditConfig = AuditConfig()
    peers: tuple[PeerConfig, ...] = ()
    routes: tuple[RouteConfig, ...] = ()
    analyses: tuple[AnalysisConfig, ...] = ()
    source: Path | None = None

    @property
    def private_files(self) -> tuple[Path, ...]:
        """Files that nobody but the node has to see: the configuration itself, and every key."""
        keys = [one.tls_key for one in self.peers] + ([self.node.tls.key] if self.node.tls else [])
        return tuple(one for one in (self.source, *keys) if one is not None)

    def analysis(self, name: str) -> AnalysisConfig | None:
        """The analysis of this name; None where there is none."""
        return next((one for one in self.analyses if one.name == name), None)

    def quiet_seconds(self, analysis: AnalysisConfig) -> float:
        """The quiet period that counts for ``analysis``."""
        return self.study.quiet_seconds if analysis.quiet_seconds is None else analysis.quiet_seconds

    def limits_of(self, peer: PeerConfig) -> LimitsConfig:
        """The limits that count for associations with ``peer``, in both directions."""
        seconds, pdu_bytes = peer.network_timeout_seconds, peer.max_pdu_bytes
        return replace(
            self.limits,
            network_timeout_seconds=self.limits.network_timeout_seconds if seconds is None else seconds,
            max_pdu_bytes=self.limits.max_pdu_bytes if pdu_bytes is None else pdu_bytes,
        )
