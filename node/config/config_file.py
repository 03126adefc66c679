"""Reads ``config.toml``: every problem of the file at once, each with its line and a suggestion."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.config import config_analyses, config_lines, config_tables
from node.config.config_reading import TableReading, is_tables
from node.config.config_values import is_loopback, shown, suggestion
from node.config.settings import (
    AuditConfig,
    Config,
    JobsConfig,
    LimitsConfig,
    LogConfig,
    NodeConfig,
    PeerConfig,
    RouteConfig,
    StorageConfig,
    StudyConfig,
    TlsConfig,
    TranscodeConfig,
    TranscodeRule,
    VerifyConfig,
)
from node.errors import ConfigurationError

_TLS_PATH = ("node", "tls")
_RULES_PATH = ("transcode", "rules")


def load(path: Path) -> Config:
    """Read the configuration file ``path``.

    Raises
    ------
    ConfigurationError
        With every problem of the file, in the order of its lines, each
        ``FILE:LINE: [table] key: what is wrong``.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError([f"{path}: there is no such file"]) from None
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        document_text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([f"{path}:{line}: the file is not UTF-8 text"]) from None
    return parse(document_text, path)


def defaults() -> Config:
    """Return what counts without a file: paths are relative to the working directory."""
    config = Config()
    return replace(config, node=replace(config.node, data_dir=config.node.data_dir.resolve()))


def parse(document_text: str, path: Path) -> Config:
    """Read the text of a configuration file; ``path`` is where it stands (see `load`)."""
    try:
        document = tomllib.loads(document_text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([_syntax_problem(str(error), document_text, path)]) from None
    except RecursionError:
        raise ConfigurationError([f"{path}: values are nested too deeply"]) from None
    return _Reading(document, config_lines.lines_of(document_text), path).config()


def _syntax_problem(message: str, document_text: str, path: Path) -> str:
    place = re.search(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$", message)
    what = message[: place.start()] if place else message
    line = int(place[1]) if place and place[1] else max(1, len(document_text.splitlines()))
    return f"{path}:{line}: not valid TOML: {what[:1].lower()}{what[1:]}"


class _Reading(TableReading):
    """One pass over a document; problems are gathered, not raised, until the end."""

    def config(self) -> Config:
        known = [*config_tables.TABLES, "peers", "routes", "analyses"]
        for key, value in self.document.items():
            if key not in known:
                what = f"[{key}]" if isinstance(value, dict) else f"[[{key}]]" if is_tables(value) else key
                kind = "key" if what == key else "table"
                hint = suggestion(key, known) or self.home_of(key)
                self.problem((key,), f"{what}: unknown {kind}{hint}")
        tables = {table: self._table(table) for table in config_tables.TABLES}
        tables["transcode"]["rules"] = tuple(self._rules())
        tls = self._tls()
        peers = self._peers()
        routes = self._routes({peer.ae_title for peer in peers})
        analyses = config_analyses.read(self, {peer.ae_title for peer in peers})
        self._pauses(tables["jobs"])
        self._audit(tables["audit"], tls)
        node = self._node(tables["node"], tls, bool(self.document.get("peers")))
        if self.problems:
            ordered = sorted(set(self.problems))
            raise ConfigurationError([f"{self.path}:{one.line}: {one.message}" for one in ordered])
        return Config(
            node=NodeConfig(**node),
            limits=LimitsConfig(**tables["limits"]),
            storage=StorageConfig(**tables["storage"]),
            transcode=TranscodeConfig(**tables["transcode"]),
            verify=VerifyConfig(**tables["verify"]),
            study=StudyConfig(**tables["study"]),
            jobs=JobsConfig(**tables["jobs"]),
            log=LogConfig(**tables["log"]),
            audit=AuditConfig(**tables["audit"]),
            peers=tuple(peers),
            routes=tuple(routes),
            analyses=tuple(analyses),
            source=self.path,
        )

    def _node(self, node: dict[str, Any], tls: TlsConfig | None, has_peers: bool) -> dict[str, Any]:
        node["tls"] = tls
        host, title = node.get("host", NodeConfig.host), "node"
        if is_loopback(host) and tls is not None and tls.port is not None and tls.host is not None:
            host, title = tls.host, "node.tls"
        port = node.get("port", NodeConfig.port)
        if tls is not None and tls.port == port and tls.port:
            self.problem(
                (*_TLS_PATH, "port"), f"[node.tls] port: {port} is [node] port already; each needs its own"
            )
        on_loopback = is_loopback(host)
        accepts = node.setdefault("accept_unknown_peers", on_loopback)
        if not on_loopback and not has_peers and not accepts:
            self.problem(
                (*title.split("."), "host"),
                f"[{title}] host: {host} can be reached from other machines, but no [[peers]] are "
                "configured; add them, or set accept_unknown_peers = true to let anyone in",
            )
        data_dir = Path(node.get("data_dir", str(NodeConfig.data_dir))).expanduser()
        node["data_dir"] = (self.path.absolute().parent / data_dir).resolve()
        return node

    def _tls(self) -> TlsConfig | None:
        node = self.document.get("node")
        raw = node.get("tls") if isinstance(node, dict) else None
        if raw is None:
            return None
        if not isinstance(raw, dict):
            self.problem(_TLS_PATH, f"[node] tls: {shown(raw)} is no table; write [node.tls]")
            return None
        values = self.values(_TLS_PATH, "[node.tls]", raw, config_tables.TLS)
        self._resolve(values, "certificate", "key", "ca", "crl")
        wanted = {
            "certificate": "key" in raw or "port" in raw,
            "key": "certificate" in raw or "port" in raw,
            "ca": raw.get("verify_peers") is not False,
        }
        for key, is_wanted in wanted.items():
            if is_wanted and key not in raw:
                why = ", or set verify_peers = false to trust anyone" if key == "ca" else ""
                self.problem(_TLS_PATH, f"[node.tls]: '{key}' is missing{why}")
        return TlsConfig(**values)

    def _audit(self, audit: dict[str, Any], tls: TlsConfig | None) -> None:
        if "ca" in audit:
            audit["ca"] = (self.path.absolute().parent / Path(audit["ca"]).expanduser()).resolve()
        address = audit.get("syslog")
        has_ca = "ca" in audit or (tls is not None and tls.ca is not None)
        if address is not None and address.transport == "tls" and not has_ca:
            self.problem(("audit", "syslog"), "[audit] syslog: over TLS it needs 'ca', here or in [node.tls]")

    def _pauses(self, jobs: dict[str, Any]) -> None:
        first = jobs.get("delivery_retry_first_seconds", 0)
        longest = jobs.get("delivery_retry_max_seconds", first)
        if first > longest:
            key = "delivery_retry_first_seconds"
            wrong = f"{first:g} is more than delivery_retry_max_seconds, {longest:g}"
            self.problem(("jobs", key), f"[jobs] {key}: {wrong}")

    def _peers(self) -> list[PeerConfig]:
        peers: list[PeerConfig] = []
        lines: dict[str, int] = {}
        for path, raw in self.elements("peers"):
            only_calls_us = "addresses" in raw and "host" not in raw and "port" not in raw
            required = ("ae_title",) if only_calls_us else ("ae_title", "host", "port")
            values = self.values(path, "[[peers]]", raw, config_tables.PEER, required=required)
            title = values.get("ae_title")
            if title in lines:
                message = f"[[peers]] ae_title: '{title}' is already the peer of line {lines[title]}"
                self.problem((*path, "ae_title"), message)
            elif title is not None:
                lines[title] = self.line_of(path)
            self._tls_of_peer(path, values, raw)
            self._certificates(path, values)
            values.setdefault("confirm_results", "commit" in values.get("allow", config_tables.VERBS))
            if title is not None:  # kept with faults in the rest, so that send_to may name it
                peers.append(PeerConfig(**values))
                if only_calls_us:
                    self.only_call_us[title] = self.line_of(path)
        return peers

    def _tls_of_peer(self, path: config_lines.Path, values: dict[str, Any], raw: dict[str, Any]) -> None:
        if values.get("tls") and self._lacks_tls() and "tls_ca" not in raw:
            wrong = "needs [node.tls] with what is to be trusted, or tls_ca"
            self.problem((*path, "tls"), f"[[peers]] tls: {wrong}")
        for key, other in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")):
            if key in raw and other not in raw:
                self.problem((*path, key), f"[[peers]] {key}: needs {other} beside it")
        for key in ("tls_ca", "tls_certificate", "tls_key"):
            if key in raw and "tls" not in raw:
                self.problem((*path, key), f"[[peers]] {key}: counts only with tls = true beside it")
        self._resolve(values, "tls_ca", "tls_certificate", "tls_key")

    def _resolve(self, values: dict[str, Any], *keys: str) -> None:
        for key in keys:
            if key in values:
                values[key] = (self.path.absolute().parent / Path(values[key]).expanduser()).resolve()

    def _certificates(self, path: config_lines.Path, values: dict[str, Any]) -> None:
        """Read what a peer has to show; a plain association would show nothing."""
        shows = [key for key in ("certificate_names", "certificate_sha256") if key in values]
        values.setdefault("require_tls", bool(shows))
        node = self.document.get("node")
        tls = node.get("tls") if isinstance(node, dict) else None
        has_port = isinstance(tls, dict) and "port" in tls
        keys = [*shows, *(["require_tls"] if values["require_tls"] and not shows else [])]
        for key in keys:
            if not has_port:
                self.problem((*path, key), f"[[peers]] {key}: needs a [node.tls] port that it can call")
            elif shows and isinstance(tls, dict) and tls.get("verify_peers") is False:
                wrong = "needs [node.tls] verify_peers = true: nobody is asked for a certificate without it"
                self.problem((*path, key), f"[[peers]] {key}: {wrong}")

    def _lacks_tls(self) -> bool:
        node = self.document.get("node")
        return not (isinstance(node, dict) and isinstance(node.get("tls"), dict))

    def _routes(self, peers: set[str]) -> list[RouteConfig]:
        routes = []
        for path, raw in self.elements("routes"):
            required = () if "send_to" in raw else ("send_to",)
            values = self.values(path, "[[routes]]", raw, config_tables.ROUTE, required=required, when=True)
            self.destinations((*path, "send_to"), "[[routes]]", values, peers)
            routes.append(RouteConfig(**values))
        return routes

    def _rules(self) -> list[TranscodeRule]:
        transcode = self.document.get("transcode")
        raw = transcode.get("rules", []) if isinstance(transcode, dict) else []
        rules = []
        is_rest_taken = False
        for path, rule in self.tables_of(_RULES_PATH, raw):
            values = self.values(
                path, "[[transcode.rules]]", rule, config_tables.RULE, required=("to",), when=True
            )
            if is_rest_taken:
                problem = "[[transcode.rules]]: this rule is never reached: one before it has no 'when'"
                self.problem(path, f"{problem}; put that last")
            is_rest_taken = is_rest_taken or not rule.get("when")
            rules.append(TranscodeRule(**{"to": "keep", **values}))
        return rules

    def _table(self, table: str) -> dict[str, Any]:
        raw = self.document.get(table, {})
        if not isinstance(raw, dict):
            brackets = "[[" if is_tables(raw) else ""
            wrong = f"[[{table}]] stands in double brackets" if brackets else f"{shown(raw)} is no table"
            self.problem((table,), f"[{table}]: {wrong}; write [{table}]")
            return {}
        plain = {key: value for key, value in raw.items() if (table, key) not in (_TLS_PATH, _RULES_PATH)}
        return self.values((table,), f"[{table}]", plain, config_tables.TABLES[table][1])
