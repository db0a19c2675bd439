"""The compiler cache: what tells ccache where it is, and what its statistics say.

A team's cache is ccache's own remote storage: a Redis or HTTP server that each machine asks for
what its own directory lacks, and tells of what it has compiled. Nothing of ours runs for it.
"""

from __future__ import annotations

import socket
from pathlib import Path

from slipway.errors import BAD_CONFIG, SlipwayError
from slipway.records import Record
from slipway.settings import REMOTE_CACHE, Settings

PORTS = {"redis": 6379, "http": 80}
ANSWER_MS = 2000  # ccache itself waits 10 s for each answer of a server that hangs
HERE = ("localhost", "127.", "[::1]")


class Counts(Record, frozen=True):
    """What a build took from the cache."""

    compiled: int = 0
    hits: int = 0
    shared: int = 0
    """Hits that the team's cache had, and this machine's had not."""
    errors: int = 0
    """Compilations in which the team's cache did not answer."""

    def __str__(self) -> str:
        if not self.compiled:
            return "nothing to compile"
        team = f", {self.shared} of them from the team's" if self.shared else ""
        return f"{self.hits} of {self.compiled} compilations from the cache{team}"


def counts(log: Path) -> Counts:
    """What a CCACHE_STATSLOG says: one counter's name on each line."""
    try:
        counters = log.read_text().split("\n")
    except OSError:
        return Counts()
    hits = sum(c in ("direct_cache_hit", "preprocessed_cache_hit") for c in counters)
    return Counts(
        compiled=hits + counters.count("cache_miss"),
        hits=hits,
        shared=counters.count("remote_storage_hit"),
        errors=sum(c in ("remote_storage_error", "remote_storage_timeout") for c in counters),
    )


def server(settings: Settings) -> tuple[str, int]:
    """Host and port of the team's cache; an empty host where there is none."""
    match = REMOTE_CACHE.fullmatch(settings.ccache_remote)
    if not match:
        return "", 0
    return match["host"], int(match["port"] or PORTS[match["scheme"]])


def shown(settings: Settings) -> str:
    """``HOST:PORT`` of the team's cache, which has no password in it."""
    host, port = server(settings)
    return f"{host}:{port}"


def remote(settings: Settings, *, in_container: bool) -> dict[str, str]:
    """The variable that tells ccache of the team's cache; empty where the settings name none.

    :param in_container: the compiler runs in one, where this machine has another name.
    """
    host, _ = server(settings)
    if not host:
        return {}
    if in_container and host.startswith(HERE):
        raise SlipwayError(
            f"ccache_remote: no container reaches a cache at {host}",
            cause="in the compiler's container that is the container itself",
            fix=["name the machine in ccache_remote as others of the team reach it"],
            code=BAD_CONFIG,
        )
    url = settings.ccache_remote
    # Attributes are those of who has set them.
    return {"CCACHE_REMOTE_STORAGE": url if "|" in url else f"{url}|operation-timeout={ANSWER_MS}"}


def answers(settings: Settings, wait_s: float = 2.0) -> str:
    """Why the team's cache cannot be reached from this machine; empty when it takes connections."""
    try:
        with socket.create_connection(server(settings), timeout=wait_s):
            return ""
    except OSError as error:
        return error.strerror or str(error)
