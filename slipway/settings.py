"""The workshop's settings: typed, validated, resolved once.

The defaults stand here and go into invoke by ``collection.configure``. invoke.yaml, ``INVOKE_*`` and
``-f FILE`` override them by invoke's own rules, in that order. What describes a source tree is not
here but in its project.yaml (see ``slipway.project``).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from invoke.config import Config

from slipway.errors import BAD_CONFIG, SlipwayError, nearest
from slipway.variants import TABLE, Variant
from slipway.variants import check as check_variants

ROOT = Path(__file__).resolve().parent.parent

Engine = Literal["auto", "docker", "host"]
T = TypeVar("T")


class Mirrors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a closed network keeps its copies; empty means the tools' own default."""

    apt: str = ""
    """Base URL of a Debian archive, in place of the one in the base image."""
    pip: str = ""
    """Index URL for pip, in place of pip's own."""
    registry: str = ""
    """HOST[:PORT][/PATH] asked when an image cannot be pulled from its own registry."""


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Largest sizes allowed, in MB (10^6 bytes, as docker counts)."""

    base_mb: int = 85
    dev_mb: int = 800
    image_mb: int = 170


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every key of invoke.yaml that is Slipway's."""

    engine: Engine = "auto"
    """auto: docker, or in place when inside the dev image; docker; host: no container at all."""
    base: str = "debian:trixie-slim"
    """The image under every other one; Debian 12 is ``debian:bookworm-slim``."""
    project: str = "examples/oar"
    """Directory that holds a project.yaml, or the path of one."""
    default_variants: tuple[str, ...] = ("cpu", "noavx")
    """What ``all`` makes; the other tasks take the first."""
    variants: dict[str, Variant] = msgspec.field(default_factory=lambda: dict(TABLE))
    mirrors: Mirrors = Mirrors()
    ca_bundle: str = ""
    """PEM file for HTTPS in builds; empty: the environment's, else the host's own store."""
    cache_dir: str = ""
    """Compiler cache and downloads; empty: slipway/ in the user's cache directory."""
    ccache_size: str = "5G"
    """Limit of the compiler cache, as ccache spells it."""
    shm_size: str = "1g"
    """/dev/shm of containers that run programs; docker's own default is 64 MB."""
    pull_wait_s: int = 10
    """Seconds a registry may take to begin to answer before a pull is given up."""
    budgets: Budgets = Budgets()


DEFAULTS: dict[str, Any] = msgspec.to_builtins(Settings())


def convert(data: Any, kind: type[T], where: str) -> T:
    """``data`` as ``kind``; an unknown key or a wrong type is an error that names file and key.

    :param where: the file the data came from, for the message.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise SlipwayError(
            f"{where} is not valid", cause=explain(str(error), kind), code=BAD_CONFIG
        ) from error


def explain(message: str, kind: type) -> str:
    """msgspec's message with the key's path in front and, for an unknown key, the nearest one."""
    text, _, path = message.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").lstrip(".")
    unknown = re.search(r"unknown field `(.*)`", text)
    if unknown:
        key = unknown.group(1)
        struct = _struct_at(kind, path)
        hint = nearest(key, struct.__struct_fields__) if struct else ""
        return f"{path + '.' if path else ''}{key}: unknown key; {hint}"
    return f"{path}: {text}" if path else text


def _struct_at(kind: Any, path: str) -> Any:
    """The Struct type that the dotted ``path`` of an error message leads to, if it is one."""
    for step in filter(None, path.split(".")):
        hints = msgspec.inspect.type_info(kind)
        if isinstance(hints, msgspec.inspect.StructType):
            field = next((f for f in hints.fields if f.name == step.split("[")[0]), None)
            inner = field.type if field else None
        elif isinstance(hints, msgspec.inspect.DictType):
            inner = hints.value_type
        else:
            return None
        while isinstance(inner, msgspec.inspect.DictType) and "[...]" in step:
            inner = inner.value_type
        kind = getattr(inner, "cls", None)
        if kind is None:
            return None
    return kind


def check_environment(environ: Mapping[str, str]) -> None:
    """Refuse ``INVOKE_*`` variables that invoke would misread or die of with a traceback.

    invoke takes scalars only from the environment, and any text but ``0`` as true.
    """
    for key, value in DEFAULTS.items():
        name = f"INVOKE_{key.upper()}"
        if name not in environ:
            continue
        if isinstance(value, list | tuple | dict):
            raise SlipwayError(
                f"{name}: '{key}' is not a single value and cannot be set by a variable",
                cause="invoke reads only text and numbers from the environment",
                fix=[f"set {key} in invoke.yaml, or in a file given with: invoke -f FILE TASK"],
                code=BAD_CONFIG,
            )


@dataclass(frozen=True)
class Workshop:
    """A checkout of Slipway with its settings: what every task starts from."""

    root: Path
    settings: Settings
    dry: bool = False

    @property
    def checkout(self) -> str:
        """Eight hex digits that tell this checkout from others; in names and labels."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]

    @property
    def out(self) -> Path:
        """Everything produced, by project and variant."""
        return self.root / "out"

    @property
    def dist(self) -> Path:
        """Finished artifacts only."""
        return self.root / "dist"

    @property
    def scripts(self) -> Path:
        """What runs inside containers."""
        return self.root / "scripts"

    @property
    def cache(self) -> Path:
        """Compiler cache and downloads, shared by all checkouts of a user."""
        if self.settings.cache_dir:
            return (self.root / Path(self.settings.cache_dir).expanduser()).absolute()
        default = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(default) / "slipway"

    @property
    def ca_bundle(self) -> Path | None:
        """The PEM file that HTTPS needs on this network, if there is one."""
        stores = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
        named = (os.environ.get(n) for n in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"))
        if self.settings.ca_bundle:
            path = (self.root / Path(self.settings.ca_bundle).expanduser()).absolute()
            if not path.is_file():
                raise SlipwayError(
                    f"ca_bundle: no file {path}", fix=["mend ca_bundle in invoke.yaml"], code=78
                )
            return path
        return next((Path(p) for p in [*named, *stores] if p and Path(p).is_file()), None)


def plain(value: Any) -> Any:
    """invoke's nested proxies as ordinary dictionaries and lists."""
    if hasattr(value, "items"):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def load(config: Config) -> Workshop:
    """The workshop that invoke's merged configuration describes."""
    fields = Settings.__struct_fields__
    ours = set(fields) | set(Config.global_defaults())
    # The two levels that are our files; a user's own ~/.invoke.yaml may serve other projects too.
    for level, where in (("project", "invoke.yaml"), ("runtime", "the file given with -f")):
        for key in getattr(config, f"_{level}") or {}:
            if key not in ours:
                raise SlipwayError(
                    f"{where} is not valid",
                    cause=f"{key}: unknown key; {nearest(key, fields)}",
                    code=BAD_CONFIG,
                )
    merged = {key: plain(config[key]) for key in fields}
    settings = convert(merged, Settings, "the settings (invoke.yaml, INVOKE_*, -f)")
    check_variants(settings.variants)
    return Workshop(root=ROOT, settings=settings, dry=bool(config.run.dry))
