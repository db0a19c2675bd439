"""A registry's user and password: from where Docker keeps them, or from standard input.

They are never words of a command line, and ``repr`` does not show them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slipway import processes
from slipway.errors import BAD_CONFIG, USAGE, SlipwayError

HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"  # what Docker Hub is called in Docker's store
TOKEN_USER = "<token>"  # noqa: S105  # a helper's word for: the secret is an identity token
NOT_FOUND = "credentials not found"
CONFIG = "config.json"


@dataclass(frozen=True)
class Credential:
    """What a registry is told about who asks."""

    user: str
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """An identity token, to be changed for others; then there is no password."""

    @property
    def encoded(self) -> str:
        """User and password in base64, as HTTP and Docker's store have them."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


# -- deciding: pure functions


def directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where the ``docker`` program has its configuration."""
    return Path(environ.get("DOCKER_CONFIG") or home / ".docker")


def key_of(host: str) -> str:
    """What Docker's store calls a registry."""
    return HUB_KEY if host == HUB else host


def host_of(key: str) -> str:
    """The host in a key of ``auths``, which may be a URL: ``https://HOST/v1/``."""
    return urlsplit(key).netloc if "://" in key else key.partition("/")[0]


def helper_of(config: Mapping[str, Any], host: str) -> str:
    """The ``docker-credential-NAME`` that keeps a registry's password; empty: config.json does."""
    helpers = config.get("credHelpers") or {}
    return str(helpers.get(key_of(host), config.get("credsStore") or ""))


def stored(config: Mapping[str, Any], host: str) -> Credential | None:
    """What config.json itself has for a registry.

    :raises SlipwayError: it is no base64 of ``USER:PASSWORD``.
    """
    auths = config.get("auths") or {}
    exact = auths.get(key_of(host))
    entry = exact or next((v for k, v in auths.items() if host_of(k) == host), None)
    if not entry or not (entry.get("auth") or entry.get("identitytoken")):
        return None
    try:
        user, colon, password = (
            base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError):
        colon = user = password = ""
    token = str(entry.get("identitytoken", ""))
    if not colon and not token:
        raise SlipwayError(
            f"what {CONFIG} has for {host} is no user and password",
            fix=[f"docker login {host}"],
            code=BAD_CONFIG,
        )
    return Credential(user, "" if token else password.rstrip("\0"), token)


def answered(helper: str, status: int, text: str) -> Credential | None:
    """What a credential helper's answer means; None when it has none for that registry.

    :param text: its standard output, never shown: it may hold the password.
    """
    if status and NOT_FOUND in text.lower():
        return None
    try:
        answer = json.loads(text) if not status else {}
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise SlipwayError(
            f"docker-credential-{helper} gave no credentials: status {status}",
            cause=f"{CONFIG} of docker names it as where passwords are kept",
            fix=[
                f"docker-credential-{helper} list",
                "invoke push --username NAME --password-stdin",
            ],
            code=BAD_CONFIG,
        ) from None
    return Credential(user, token=secret) if user == TOKEN_USER else Credential(user, secret)


def with_password(config: Mapping[str, Any], host: str, given: Credential) -> dict[str, Any]:
    """A configuration for the ``docker`` program in which one registry has this password."""
    key = key_of(host)
    auths = {**(config.get("auths") or {}), key: {"auth": given.encoded}}
    # An empty helper for this one means: from here, whatever keeps the others.
    return {**config, "auths": auths, "credHelpers": {**(config.get("credHelpers") or {}), key: ""}}


def first_line(text: str) -> str:
    """The password that was written to standard input."""
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password:
        raise SlipwayError(
            "standard input holds no password" if not password else "a password is one line",
            fix=["invoke push --username NAME --password-stdin --yes < FILE"],
            code=USAGE,
        )
    return password


# -- acting


def config_directory() -> Path:
    """Where this user's ``docker`` has its configuration."""
    return directory(os.environ, Path.home())


def read_config(place: Path) -> dict[str, Any]:
    """Docker's config.json in a directory; empty when there is none."""
    file = place / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        config = error
    if not isinstance(config, dict):
        # Its words could be a piece of it, and so of a password: they are not shown.
        raise SlipwayError(f"{file} is no JSON object", fix=[f"mend {file}"], code=BAD_CONFIG)
    return config


def find(host: str) -> Credential | None:
    """What Docker's store has for a registry."""
    config = read_config(config_directory())
    helper = helper_of(config, host)
    if not helper:
        return stored(config, host)
    program = f"docker-credential-{helper}"
    if not re.fullmatch(r"[\w.-]+", helper) or not shutil.which(program):
        raise SlipwayError(
            f"no program {program} on this machine",
            cause=f"{CONFIG} of docker names it as where passwords are kept",
            fix=[f"mend {config_directory() / CONFIG}, then docker login {host}"],
            code=BAD_CONFIG,
        )
    done = processes.look([program, "get"], typed=key_of(host))
    return answered(helper, done.returncode, done.stdout)


@contextlib.contextmanager
def private_config(host: str, given: Credential | None) -> Iterator[dict[str, str]]:
    """Variables with which ``docker`` knows ``given`` at ``host``, and all else that it knew.

    Without ``given`` there are none. The password is in a file that only this user can read, and
    that is gone at the end.
    """
    if given is None:
        yield {}
        return
    ours = config_directory()
    config = with_password(read_config(ours), host, given)
    with tempfile.TemporaryDirectory(prefix="slipway-docker-") as name:
        place = Path(name)  # mode 0700
        file = place / CONFIG
        file.touch(0o600)
        file.write_text(json.dumps(config), encoding="utf-8")
        for entry in ours.iterdir() if ours.is_dir() else ():
            if entry.name != CONFIG:  # contexts, plug-ins
                (place / entry.name).symlink_to(entry.absolute())
        yield {"DOCKER_CONFIG": name}
