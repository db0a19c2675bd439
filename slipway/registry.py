"""A registry as its HTTP API tells it: which digest a tag has, which tags there are, moving a tag.

``docker`` sends and fetches layers; what is there is asked here, in milliseconds, and compared. The
API is that of the distribution specification; credentials are Docker's own, and are never shown.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from slipway import base, credentials, engine
from slipway.credentials import HUB, Credential
from slipway.errors import BAD_DATA, NO_PERMISSION, SlipwayError
from slipway.fetched import without_credentials
from slipway.records import Record
from slipway.settings import Workshop

MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
DIGEST = "Docker-Content-Digest"
PAGE = 1000  # tags asked for at once


class Target(Record, frozen=True):
    """A place in a registry, below which images have their names."""

    host: str
    """HOST[:PORT]."""
    path: str
    """Before an image's own name; may be empty."""

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" if self.path else self.host

    def name(self, alias: str) -> str:
        """What ``docker`` calls an image there: ``registry:5000/team/oar:1.2.0``."""
        return f"{self}/{alias}"

    def repository(self, alias: str) -> str:
        """What the API calls it: ``team/oar``."""
        image = alias.partition(":")[0]
        return f"{self.path}/{image}" if self.path else image


class Stored(Record, frozen=True):
    """An image's manifest in a registry."""

    digest: str
    media_type: str
    body: bytes
    config: str
    """Digest of the image's configuration, which an engine calls its id; empty in an index."""

    def is_image(self, image_id: str) -> bool:
        """Whether it is the image that an engine calls so; one with containerd's store takes the
        manifest's own digest for the id.
        """
        return image_id in (self.config, self.digest)


# -- deciding: pure functions


def target_of(text: str) -> Target:
    """The place that ``HOST[:PORT][/PATH]`` means."""
    host, _, path = text.rstrip("/").partition("/")
    return Target(host, path)


def targets(workshop: Workshop) -> list[Target]:
    """Where ``push`` goes: the registry of the settings, then each of its mirrors, once."""
    return [target_of(text) for text in base.registries(workshop)]


def is_insecure(host: str, known: Mapping[str, Any]) -> bool:
    """Whether the engine would speak HTTP to a host: to this machine, or where it was told so.

    :param known: ``RegistryConfig`` of ``docker info``.
    """
    configured = (known.get("IndexConfigs") or {}).get(host)
    if configured is not None:
        return not configured.get("Secure", True)
    name = host.partition(":")[0]
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name)
        ranges = known.get("InsecureRegistryCIDRs") or ()
        return any(address in ipaddress.ip_network(text) for text in ranges)
    return False


def challenge(header: str) -> tuple[str, dict[str, str]]:
    """Kind, in small letters, and fields of a ``WWW-Authenticate`` header."""
    kind, _, rest = header.strip().partition(" ")
    fields = re.findall(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))', rest)
    return kind.lower(), {name.lower(): quoted or bare for name, quoted, bare in fields}


def parsed(body: bytes, headers: Mapping[str, str], source: str) -> Stored:
    """A manifest whose bytes are what their digest says.

    :param source: what it is the manifest of, for the error.
    """
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    told = headers.get(DIGEST, digest)
    try:
        manifest = json.loads(body)
        kind = headers.get("Content-Type") or manifest["mediaType"]
        config = str((manifest.get("config") or {}).get("digest", ""))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise not_whole(source, "its manifest is no JSON of an image") from None
    if told != digest:
        raise not_whole(source, f"its manifest has the digest {digest}, the registry says {told}")
    return Stored(digest, kind.partition(";")[0].strip(), body, config)


def not_whole(source: str, cause: str) -> SlipwayError:
    """The error for an answer that is not what it says it is."""
    return SlipwayError(
        f"{source} is not whole",
        cause=f"{cause}\nthe registry, or a proxy before it, has changed it",
        fix=["./go invoke push, which sends it again"],
        code=BAD_DATA,
    )


def unreachable(target: Target, error: Exception, wait_s: float) -> SlipwayError:
    """Why a registry gave no answer."""
    again = f"curl --silent --show-error https://{target.host}/v2/"
    fix = [again, "check registry and registry_mirrors in invoke.yaml"]
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return SlipwayError(
            f"{target.host} gave no answer within {wait_s:g} s",
            cause="it is overloaded, or a firewall drops what is sent to it",
            fix=[*fix, "or raise pull_wait_s"],
        )
    if isinstance(error, requests.exceptions.SSLError):
        return SlipwayError(
            f"the certificate of {target.host} is not trusted",
            cause=root_cause(error),
            fix=["set ca_bundle in invoke.yaml to the PEM file of who signed it"],
        )
    return SlipwayError(f"{target.host} does not answer", cause=root_cause(error), fix=fix)


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error of ``requests``: ``Connection refused``."""
    seen: BaseException | None = error
    text = str(error)
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            text = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return without_credentials(text)


def answered(target: Target, status: int, body: str, *, known: bool) -> SlipwayError:
    """What a registry's refusal means.

    :param known: whether credentials were sent.
    """
    if status in (401, 403):
        what = "refuses the credentials" if known else "wants credentials, and Docker has none"
        return SlipwayError(
            f"{target.host} {what}",
            cause=f"HTTP {status}{reasons(body)}",
            fix=[
                f"docker login {target.host}",
                "or invoke push --username NAME --password-stdin --yes < FILE",
            ],
            code=NO_PERMISSION,
        )
    full = "; its disk may be full, its log says" if status >= 500 else ""
    return SlipwayError(
        f"{target.host} failed: HTTP {status}",
        cause=f"the registry's own words{reasons(body) or ': none'}{full}",
        fix=["mend the registry, then push again: what is there is not sent twice"],
    )


def reasons(body: str) -> str:
    """``: message, message`` from the JSON of a refusal; empty where it is none."""
    try:
        errors = json.loads(body)["errors"]
        words = [f"{e.get('message', '')} {e.get('detail') or ''}".strip() for e in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {', '.join(word for word in words if word)[:300]}"


# -- asking


class Client:
    """Questions to one registry, from a program that waits no longer than ``wait_s`` for each.

    :param insecure: HTTP is tried where HTTPS is not spoken.
    :param credential: asked for when the registry wants to know who asks, and not before.
    """

    def __init__(
        self,
        target: Target,
        *,
        wait_s: float,
        insecure: bool,
        verify: str | bool,
        credential: Callable[[], Credential | None],
    ) -> None:
        self.target = target
        self.session = requests.Session()
        if insecure:  # the engine uses no proxy for this machine either
            self.session.trust_env = False
        self._wait_s, self._verify, self._credential = wait_s, verify, credential
        host = "registry-1.docker.io" if target.host == HUB else target.host
        self._bases = [f"https://{host}", *([f"http://{host}"] if insecure else [])]
        self._known = False
        self._headers: dict[str, str] = {}  # what said who asks, by scope

    def close(self) -> None:
        """End the connections."""
        self.session.close()

    def digest(self, alias: str) -> str:
        """The digest of an image; empty when the registry has none of that name."""
        with self._ask("HEAD", *self._manifest(alias), headers=_accept()) as answer:
            return str(answer.headers.get(DIGEST, "unknown")) if self._is_there(answer) else ""

    def stored(self, alias: str) -> Stored | None:
        """The manifest of an image; None when the registry has none of that name."""
        with self._ask("GET", *self._manifest(alias), headers=_accept()) as answer:
            if not self._is_there(answer):
                return None
            return parsed(answer.content, answer.headers, self.target.name(alias))

    def tags(self, name: str) -> list[str]:
        """All tags of an image; none where there is no such image."""
        repository = self.target.repository(name)
        found: list[str] = []
        path = f"/v2/{repository}/tags/list?n={PAGE}"
        while path:
            with self._ask("GET", path, f"repository:{repository}:pull") as answer:
                if not self._is_there(answer):
                    return found
                try:
                    found += answer.json()["tags"] or []
                except (ValueError, KeyError, TypeError):
                    raise not_whole(f"the list of tags of {self.target.name(name)}", "") from None
                following = answer.links.get("next", {}).get("url", "")
                parts = urlsplit(urljoin(answer.url, following)) if following else None
            path = f"{parts.path}?{parts.query}" if parts else ""
        return found

    def put(self, alias: str, stored: Stored) -> None:
        """Give a manifest that is there a name: nothing else is sent."""
        path, _ = self._manifest(alias)
        scope = f"repository:{self.target.repository(alias)}:pull,push"
        headers = {"Content-Type": stored.media_type}
        with self._ask("PUT", path, scope, headers=headers, data=stored.body) as answer:
            if not answer.ok:
                raise answered(self.target, answer.status_code, answer.text, known=self._known)

    def check(self, name: str) -> None:
        """Whether it answers, and lets us write below the name of an image.

        :raises SlipwayError: what is in the way.
        """
        scope = f"repository:{self.target.repository(name)}:pull,push"
        with self._ask("GET", "/v2/", scope) as answer:
            self._is_there(answer)

    def _manifest(self, alias: str) -> tuple[str, str]:
        repository = self.target.repository(alias)
        path = f"/v2/{repository}/manifests/{alias.partition(':')[2]}"
        return path, f"repository:{repository}:pull"

    def _is_there(self, answer: requests.Response) -> bool:
        """Whether what was asked for is there; a refusal, or a failure, is an error."""
        if answer.status_code == 404:
            return False
        if not answer.ok:
            raise answered(self.target, answer.status_code, answer.text, known=self._known)
        return True

    @contextlib.contextmanager
    def _ask(
        self,
        method: str,
        path: str,
        scope: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Iterator[requests.Response]:
        """One answer, after saying who asks where the registry wants to know."""
        answer = self._send(method, path, {**(headers or {}), **self._who(scope)}, data)
        if answer.status_code == 401:
            self._authorize(answer, scope)
            answer.close()
            answer = self._send(method, path, {**(headers or {}), **self._who(scope)}, data)
        with answer:
            yield answer

    def _who(self, scope: str) -> dict[str, str]:
        value = self._headers.get(scope, "")
        return {"Authorization": value} if value else {}

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes | None
    ) -> requests.Response:
        """An answer by HTTPS, or by HTTP where that is allowed and HTTPS is not spoken."""
        for number, root in enumerate(self._bases):
            try:
                answer = self.session.request(
                    method,
                    f"{root}{path}",
                    headers=headers,
                    data=data,
                    timeout=self._wait_s,
                    verify=self._verify,
                    auth=_as_it_is,
                )
            except requests.RequestException as error:
                late = isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error)
                if late or number == len(self._bases) - 1:
                    raise unreachable(self.target, error, self._wait_s) from error
                continue
            self._bases = [root]
            return answer
        raise AssertionError  # there is always one

    def _authorize(self, refused: requests.Response, scope: str) -> None:
        """Find out what says who asks, as a refusal wants it."""
        kind, fields = challenge(refused.headers.get("WWW-Authenticate", ""))
        credential = self._credential()
        self._known = credential is not None
        if kind == "basic" and credential:
            self._headers[scope] = f"Basic {credential.encoded}"
        elif kind == "bearer":
            self._headers[scope] = f"Bearer {self._token(fields, scope, credential)}"

    def _token(self, fields: Mapping[str, str], scope: str, credential: Credential | None) -> str:
        """A token for a scope, from who gives them for this registry."""
        realm = fields.get("realm", "")
        if not realm.startswith("https://") and self._bases[0].startswith("https://"):
            raise SlipwayError(
                f"{self.target.host} asks for a password to be sent in clear",
                cause=f"it names {realm!r}, which is not HTTPS, as the place for it",
                fix=["ask who runs the registry"],
                code=NO_PERMISSION,
            )
        wanted = {"service": fields.get("service", ""), "scope": scope}
        headers = {}
        if credential and not credential.token:
            headers["Authorization"] = f"Basic {credential.encoded}"
        try:
            if credential and credential.token:
                form = {**wanted, "grant_type": "refresh_token", "client_id": "slipway"}
                answer = self.session.post(
                    realm,
                    data={**form, "refresh_token": credential.token},
                    timeout=self._wait_s,
                    verify=self._verify,
                    auth=_as_it_is,
                )
            else:
                answer = self.session.get(
                    realm,
                    params=wanted,
                    headers=headers,
                    timeout=self._wait_s,
                    verify=self._verify,
                    auth=_as_it_is,
                )
        except requests.RequestException as error:
            raise unreachable(self.target, error, self._wait_s) from error
        with answer:
            if not answer.ok:
                raise answered(self.target, answer.status_code, answer.text, known=self._known)
            try:
                given = answer.json()
                return str(given.get("token") or given["access_token"])
            except (ValueError, KeyError, AttributeError):
                raise not_whole(f"the token for {self.target.host}", "it is no JSON") from None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Who asks stands in the headers already: ``requests`` must not look into ~/.netrc."""
    return request


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(MANIFESTS)}


def _credential(given: Mapping[str, Credential], host: str) -> Credential | None:
    return given.get(host) or credentials.find(host)


@contextlib.contextmanager
def clients(
    workshop: Workshop, wanted: Sequence[Target], given: Mapping[str, Credential] | None = None
) -> Iterator[list[Client]]:
    """A client for each place.

    :param given: credentials by host that are used in place of Docker's store.
    """
    known = engine.info().get("RegistryConfig") or {}
    bundle = workshop.ca_bundle
    made = [
        Client(
            target,
            wait_s=workshop.settings.pull_wait_s,
            insecure=is_insecure(target.host, known),
            verify=str(bundle) if bundle else True,
            credential=functools.partial(_credential, given or {}, target.host),
        )
        for target in wanted
    ]
    try:
        yield made
    finally:
        for client in made:
            client.close()
