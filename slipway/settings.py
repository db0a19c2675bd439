"""The workshop's settings: typed, validated, resolved once.

The defaults stand here and go into invoke by ``collection.configure``. invoke.yaml, ``INVOKE_*``
and ``-f FILE`` override them by invoke's own rules, in that order. What describes a source tree is
not here but in its project.yaml (see ``slipway.project``).
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec
import yaml
from invoke.config import Config
from msgspec import inspect

from slipway.errors import BAD_CONFIG, SlipwayError, nearest
from slipway.records import Record
from slipway.variants import TABLE, Variant
from slipway.variants import check as check_variants

ROOT = Path(__file__).resolve().parent.parent

Engine = Literal["auto", "docker", "podman", "host"]
ENGINES = get_args(Engine)
CONTAINER = "container"  # what a task asks for that runs in one, whichever engine is chosen
Gpu = Literal["auto", "on", "off"]
GPU = get_args(Gpu)
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
    wheel_mb: int = 100
    """The largest file that the Python Package Index takes unasked."""
    book_mb: int = 1600


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the execution of a chapter of the book may take."""

    cell_s: int = 90
    chapter_s: int = 180
    output_kb: int = 2000
    """What one cell may print and draw."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every key of invoke.yaml that is Slipway's."""

    engine: Engine = "auto"
    """auto: docker, podman without one, or in place inside the dev image; host: no container."""
    gpu: Gpu = "auto"
    """auto: variants with CUDA get the GPU where one works; on: an error without; off: never."""
    base: str = "debian:trixie-slim"
    """The image under every other one; Debian 12 is ``debian:bookworm-slim``."""
    wheel_bases: tuple[str, ...] = ("debian:bookworm-slim", "debian:trixie-slim")
    """Where `wheel --base all` builds, each with its own Python and C library."""
    project: str = "examples/oar"
    """Directory that holds a project.yaml, or the path of one."""
    default_variants: tuple[str, ...] = ("cpu", "noavx")
    """What ``all`` makes; the other tasks take the first."""
    variants: dict[str, Variant] = msgspec.field(default_factory=lambda: dict(TABLE))
    mirrors: Mirrors = Mirrors()
    registry: str = ""
    """HOST[:PORT][/PATH] of our own images: pushed to, and pulled from; empty: none."""
    registry_mirrors: tuple[str, ...] = ()
    """More such places, for the same images: pushed to as well, pulled from in turn."""
    ca_bundle: str = ""
    """PEM file for HTTPS in builds; empty: the environment's, else the host's own store."""
    cache_dir: str = ""
    """Compiler cache and downloads; empty: slipway/ in the user's cache directory."""
    ccache_size: str = "5G"
    """Limit of the compiler cache, as ccache spells it."""
    ccache_remote: str = ""
    """URL of a compiler cache that a team shares, redis://HOST or http://HOST; empty: none."""
    shm_size: str = "1g"
    """/dev/shm of containers that run programs; docker's own default is 64 MB."""
    pull_wait_s: int = 10
    """Seconds a registry may take to begin to answer before a pull is given up."""
    book: str = "book"
    """Directory of the book's chapters; empty, or not there: no book."""
    book_limits: Limits = Limits()
    book_port: int = 8888
    """Where `read` serves the book: this port of 127.0.0.1, or the next free one."""
    ssh_port: int = 0
    """Where `ssh` takes logins: this port of 127.0.0.1; 0: the one of last time, or a free one."""
    budgets: Budgets = Budgets()


# What may follow it, after |, are ccache's own attributes, such as read-only.
REMOTE_CACHE = re.compile(
    r"(?P<scheme>redis|http)://([^\s/|@]*@)?(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])"
    r"(:(?P<port>\d{1,5}))?(/[^\s|]*)?(\|[^\s|]+)*"
)
# A first word with neither dot nor port is a user of Docker Hub to docker, and no host.
REGISTRY = re.compile(
    r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:))(:\d{1,5})?"
    r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)*/?"
)
# The safe loader in C, where PyYAML was built with it: 0.5 ms for Oar's file instead of 3.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MEND = "mend it; README.md and invoke.yaml list the settings"
DEFAULTS: dict[str, Any] = msgspec.to_builtins(Settings())


def convert(data: Any, kind: type[T], where: str, *, fix: str) -> T:
    """``data`` as ``kind``; an unknown key or a wrong type is an error that names file and key.

    :param where: the file the data came from, for the message.
    :param fix: what to do about it.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        cause = explain(str(error), kind, data)
        raise SlipwayError(
            f"{where} is not valid", cause=cause, fix=[fix], code=BAD_CONFIG
        ) from error


def explain(message: str, kind: type, data: Any) -> str:
    """msgspec's message with the key's path in front and, for an unknown key, the nearest one."""
    text, _, steps = message.partition(" - at `")
    path, inner = _locate(steps, inspect.type_info(kind), data)
    unknown = re.search(r"unknown field `(.*)`", text)
    if unknown and isinstance(inner, inspect.StructType):
        key = ".".join([*path, unknown.group(1)])
        return f"{key}: unknown key; {nearest(unknown.group(1), [f.name for f in inner.fields])}"
    wrong = re.search(r"enum value '(.*)'", text)
    if wrong and isinstance(inner, inspect.LiteralType):
        names = [str(value) for value in inner.values]
        return f"{'.'.join(path)}: no '{wrong.group(1)}'; {nearest(wrong.group(1), names)}"
    if isinstance(inner, inspect.LiteralType) and "got `bool`" in text:
        # Not mended in silence: invoke would take INVOKE_GPU=off for true then.
        text = f"{text}; to YAML a bare on or off is true or false: put it in quotes"
    text = text.replace(" | null`", "`")  # what is not said need not be said to be null
    return f"{'.'.join(path)}: {text}" if path else text


def _locate(steps: str, kind: inspect.Type, data: Any) -> tuple[list[str], inspect.Type]:
    """The keys that msgspec's ``$.variants[...].isa`` leads along, and the type at its end.

    It writes ``[...]`` for the key of a mapping: that is the first whose value does not convert.
    """
    path: list[str] = []
    for name, index in re.findall(r"\.(\w+)|\[(\.\.\.|\d+)\]", steps):
        if isinstance(kind, inspect.StructType):
            kind = next(f.type for f in kind.fields if f.name == name)
        elif isinstance(kind, inspect.DictType):
            kind = kind.value_type
            wanted = getattr(kind, "cls", str)
            name = next((k for k, v in data.items() if not _converts(v, wanted)), index)
        elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
            kind = kind.item_type
        key = name or int(index)
        path.append(str(key))
        data = data[key] if data else data
    return path, kind


def _converts(value: Any, kind: type) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def check_file(file: Path) -> None:
    """Refuse a settings file that invoke would die of with a traceback, or silently not read.

    A file that is not there is invoke's to complain of.
    """
    if not file.is_file():
        return
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506  # safe
    except yaml.YAMLError as error:
        raise SlipwayError(
            f"{file} is not YAML", cause=str(error), fix=[MEND], code=BAD_CONFIG
        ) from error
    if data is None:
        return
    if not isinstance(data, dict):
        cause = f"expected keys and values, found a {type(data).__name__}"
        raise SlipwayError(f"{file} is not valid", cause=cause, fix=[MEND], code=BAD_CONFIG)
    invokes = Config.global_defaults()
    ours = {key: value for key, value in data.items() if key not in invokes}
    convert(_merged(DEFAULTS, ours), Settings, str(file), fix=MEND)


def _merged(below: Any, above: Any) -> Any:
    """Mappings merged key by key, as invoke does it; anything else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{k: _merged(below[k], v) if k in below else v for k, v in above.items()}}


def check_environment(environ: Mapping[str, str]) -> None:
    """Refuse ``INVOKE_*`` variables that invoke would die of with a traceback.

    It takes scalars only from the environment.
    """
    _check_variables(DEFAULTS, "INVOKE", environ)
    known = {f"INVOKE_{key.upper()}" for key in DEFAULTS}
    for name in environ:
        # What other tools call INVOKE_SOMETHING is theirs; what is nearly one of ours is not.
        if name.startswith("INVOKE_") and not any(
            name == k or name.startswith(f"{k}_") for k in known
        ):
            import difflib  # hardly ever needed

            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                raise SlipwayError(
                    f"{name} is no setting",
                    cause=f"did you mean {close[0]}?",
                    fix=[f"unset {name}"],
                    code=BAD_CONFIG,
                )


def _check_variables(defaults: Mapping[str, Any], prefix: str, environ: Mapping[str, str]) -> None:
    for key, default in defaults.items():
        name = f"{prefix}_{key.upper()}"
        value = environ.get(name)
        if value is not None and isinstance(default, list | tuple | dict):
            raise SlipwayError(
                f"{name}: '{key}' is not a single value and cannot be set by a variable",
                cause="invoke reads only text and numbers from the environment",
                fix=[f"set {key} in invoke.yaml, or in a file given with: invoke -f FILE TASK"],
                code=BAD_CONFIG,
            )
        if value is not None and type(default) is int and not re.fullmatch(r"\s*-?\d+\s*", value):
            raise SlipwayError(
                f"{name}: '{value}' is no whole number", fix=[f"unset {name}"], code=BAD_CONFIG
            )
        if isinstance(default, dict):
            _check_variables(default, name, environ)


def files_on(argv: Sequence[str]) -> list[Path]:
    """The files that invoke's ``-f FILE`` or ``--config FILE`` name on a command line."""
    names = []
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--":
            break
        if word in ("-f", "--config"):
            names.append(following)
        elif word.startswith("--config="):
            names.append(word.removeprefix("--config="))
        elif word.startswith("-f"):
            names.append(word.removeprefix("-f").removeprefix("="))
    return [Path(name) for name in names]


class Workshop(Record, frozen=True):
    """A checkout of Slipway with its settings: what every task starts from."""

    root: Path
    settings: Settings
    dry: bool = False
    mark: str = ""
    """What the names of directories end with where another base than the settings' is built on."""
    home: Path | None = None
    """Where ``out/`` and ``dist/`` are if not in the checkout: a release is made apart."""

    @property
    def checkout(self) -> str:
        """Eight hex digits that tell this checkout from others; in names and labels.

        On an engine of another machine also from those that lie at the same path of other machines.
        """
        from slipway.engine import local_socket

        where = str(self.root) if local_socket() else f"{self.root}@{socket.gethostname()}"
        return hashlib.sha256(os.fsencode(where)).hexdigest()[:8]

    @property
    def out(self) -> Path:
        """Everything produced, by project and variant."""
        return (self.home or self.root) / "out"

    @property
    def dist(self) -> Path:
        """Finished artifacts only."""
        return (self.home or self.root) / "dist"

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


def check_registries(settings: Settings) -> None:
    """Refuse what docker would not take for the name of a registry."""
    rows = [("registry", settings.registry)] if settings.registry else []
    rows += [("registry_mirrors", name) for name in settings.registry_mirrors]
    for key, name in rows:
        if not REGISTRY.fullmatch(name):
            raise SlipwayError(
                f"{key}: '{name}' is no registry",
                cause="expected HOST[:PORT][/PATH], such as registry.example.org/team: without "
                "https://, with a dot or a port in its host, with small letters in its path",
                fix=[f"mend {key} in invoke.yaml"],
                code=BAD_CONFIG,
            )
        if settings.registry_mirrors and not settings.registry:
            raise SlipwayError(
                "registry_mirrors is set, and registry is not",
                cause="mirrors hold the images of a registry",
                fix=["set registry in invoke.yaml too"],
                code=BAD_CONFIG,
            )


def check_remote_cache(settings: Settings) -> None:
    """Refuse what ccache would not take for a remote storage: every compilation would fail."""
    url = settings.ccache_remote
    if url and not REMOTE_CACHE.fullmatch(url):
        told = re.sub(r"(?<=:).*@", "//", url)  # what stands before the @ may be a password
        raise SlipwayError(
            f"ccache_remote: '{told}' is no compiler cache",
            cause="expected redis://HOST[:PORT] or http://HOST[:PORT]/PATH, which is what ccache "
            "speaks: it knows neither rediss: nor https:",
            fix=["mend ccache_remote in invoke.yaml"],
            code=BAD_CONFIG,
        )


def plain(value: Any) -> Any:
    """invoke's nested proxies as ordinary dictionaries and lists."""
    if hasattr(value, "items"):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def load(config: Config) -> Workshop:
    """The workshop that invoke's merged configuration describes."""
    merged = {key: plain(config[key]) for key in Settings.__struct_fields__}
    settings = convert(merged, Settings, "invoke.yaml, INVOKE_* or -f FILE", fix=MEND)
    check_variants(settings.variants)
    check_registries(settings)
    check_remote_cache(settings)
    return Workshop(root=ROOT, settings=settings, dry=bool(config.run.dry))
