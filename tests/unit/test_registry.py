"""A registry's answers: what they mean, who is told the password, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import BaseAdapter

from slipway import registry
from slipway.credentials import Credential
from slipway.errors import BAD_DATA, NO_PERMISSION, UNAVAILABLE, SlipwayError
from slipway.registry import Client, Target, challenge, is_insecure, target_of

# What the engine says of itself where nothing was configured.
PLAIN = {
    "InsecureRegistryCIDRs": ["127.0.0.0/8"],
    "IndexConfigs": {"docker.io": {"Secure": True}, "lab:5000": {"Secure": False}},
}
CONFIG = "sha256:" + "c" * 64
BODY = json.dumps({"schemaVersion": 2, "config": {"digest": CONFIG}, "layers": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
DOCKER_V2 = "application/vnd.docker.distribution.manifest.v2+json"
ANN = Credential("ann", "pa55word")


# -- names


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("registry.example", Target("registry.example", "")),
        ("127.0.0.1:5000/", Target("127.0.0.1:5000", "")),
        ("registry.example/team/tools", Target("registry.example", "team/tools")),
    ],
)
def test_a_place_in_a_registry(text: str, target: Target) -> None:
    assert target_of(text) == target
    assert str(target) == text.rstrip("/")


def test_an_image_s_name_for_docker_and_for_the_api() -> None:
    target = Target("registry:5000", "team")
    assert target.name("oar:1.2.0-noavx") == "registry:5000/team/oar:1.2.0-noavx"
    assert target.repository("oar:1.2.0-noavx") == "team/oar"
    assert Target("registry:5000", "").repository("oar") == "oar"


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.3.2.1", True),
        ("localhost:5000", True),
        ("lab:5000", True),
        ("docker.io", False),
        ("registry.example", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_http_is_for_this_machine_and_for_what_the_engine_was_told(
    host: str, insecure: bool
) -> None:
    assert is_insecure(host, PLAIN) is insecure
    assert is_insecure(host, {}) is False


# -- answers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ("", {})),
        ('Basic realm="a, b"', ("basic", {"realm": "a, b"})),
        (
            'Bearer realm="https://auth/token",service="r",scope="repository:oar:pull,push"',
            (
                "bearer",
                {
                    "realm": "https://auth/token",
                    "service": "r",
                    "scope": "repository:oar:pull,push",
                },
            ),
        ),
    ],
)
def test_a_challenge_is_read(header: str, expected: tuple[str, dict[str, str]]) -> None:
    assert challenge(header) == expected


def test_a_manifest_names_the_image_by_its_configuration() -> None:
    stored = registry.parsed(BODY, {"Content-Type": DOCKER_V2, registry.DIGEST: DIGEST}, "oar:1")
    assert (stored.digest, stored.config, stored.media_type) == (DIGEST, CONFIG, DOCKER_V2)
    assert stored.is_image(CONFIG)
    assert stored.is_image(DIGEST)  # as an engine with containerd's store calls it
    assert not stored.is_image("sha256:" + "d" * 64)


@pytest.mark.parametrize(
    ("body", "digest"),
    [(BODY + b" ", DIGEST), (b"<html>", ""), (b"[]", "")],
    ids=["changed", "a proxy's page", "no object"],
)
def test_a_manifest_that_is_not_what_its_digest_says_is_refused(body: bytes, digest: str) -> None:
    headers = {registry.DIGEST: digest} if digest else {}
    with pytest.raises(SlipwayError, match="oar:1 is not whole") as caught:
        registry.parsed(body, headers, "oar:1")
    assert caught.value.code == BAD_DATA


# -- a client, with a registry that answers from a function


Answer = tuple[int, dict[str, str], bytes]


class Answers(BaseAdapter):
    """In place of the network."""

    def __init__(self, answer: Callable[[requests.PreparedRequest], Answer]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        self.asked.append(request)
        status, headers, body = self.answer(request)
        response = requests.Response()
        response.status_code, response._content = status, body  # noqa: SLF001
        response.headers.update(headers)
        response.url, response.request = str(request.url), request
        return response

    def close(self) -> None:
        pass


def client_of(
    answer: Callable[[requests.PreparedRequest], Answer],
    *,
    credential: Credential | None = ANN,
    insecure: bool = False,
) -> tuple[Client, Answers]:
    made = Client(
        target_of("registry.example/team"),
        wait_s=3,
        insecure=insecure,
        verify=True,
        credential=lambda: credential,
    )
    adapter = Answers(answer)
    for scheme in ("https://", "http://"):
        made.session.mount(scheme, adapter)
    return made, adapter


def manifest_answer(_: requests.PreparedRequest) -> Answer:
    return 200, {"Content-Type": DOCKER_V2, registry.DIGEST: DIGEST}, BODY


def test_a_look_at_an_open_registry_is_one_question_without_a_password() -> None:
    client, adapter = client_of(manifest_answer)
    assert client.digest("oar:1.2.0") == DIGEST
    (asked,) = adapter.asked
    assert (asked.method, asked.url) == (
        "HEAD",
        "https://registry.example/v2/team/oar/manifests/1.2.0",
    )
    assert "Authorization" not in asked.headers
    assert DOCKER_V2 in asked.headers["Accept"]


def test_what_is_not_there_is_no_error() -> None:
    client, _ = client_of(lambda _: (404, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'))
    assert client.digest("oar:1") == ""
    assert client.stored("oar:1") is None
    assert client.tags("oar") == []


def basic(request: requests.PreparedRequest) -> Answer:
    if request.headers.get("Authorization") != f"Basic {ANN.encoded}":
        return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b"{}"
    return manifest_answer(request)


def test_a_password_is_told_when_it_is_asked_for_and_then_without_asking() -> None:
    client, adapter = client_of(basic)
    for _ in range(2):
        stored = client.stored("oar:1")
        assert stored
        assert stored.is_image(CONFIG)
    assert ["Authorization" in asked.headers for asked in adapter.asked] == [False, True, True]


@pytest.mark.parametrize(
    ("credential", "words"),
    [(None, "wants credentials, and Docker has none"), (Credential("ann", "x"), "refuses the")],
)
def test_credentials_that_are_missing_or_wrong_are_an_error_of_their_own(
    credential: Credential | None, words: str
) -> None:
    client, _ = client_of(basic, credential=credential)
    with pytest.raises(SlipwayError, match=words) as caught:
        client.digest("oar:1")
    assert caught.value.code == NO_PERMISSION
    assert "docker login registry.example" in caught.value.fix


def test_netrc_is_not_where_passwords_come_from(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine registry.example login eve password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client, adapter = client_of(manifest_answer)
    client.digest("oar:1")
    assert "Authorization" not in adapter.asked[0].headers


def bearer(realm: str) -> Callable[[requests.PreparedRequest], Answer]:
    """A registry whose tokens come from elsewhere: one for each scope."""

    def answer(request: requests.PreparedRequest) -> Answer:
        parts = urlsplit(str(request.url))
        if parts.path == "/token":
            fields: Mapping[str, list[str]] = parse_qs(parts.query or str(request.body))
            return 200, {}, json.dumps({"token": f"for {fields['scope'][0]}"}).encode()
        writes = request.method == "PUT"
        scope = f"repository:team/oar:pull{',push' * writes}"
        if request.headers.get("Authorization") != f"Bearer for {scope}":
            wanted = f'Bearer realm="{realm}/token",service="r"'
            return 401, {"WWW-Authenticate": wanted}, b"{}"
        return (201, {}, b"") if writes else manifest_answer(request)

    return answer


def test_a_token_is_fetched_for_what_is_to_be_done_and_the_password_goes_there_alone() -> None:
    client, adapter = client_of(bearer("https://auth.example"))
    stored = client.stored("oar:1")
    assert stored
    client.put("oar:latest", stored)
    told = {
        urlsplit(str(a.url)).netloc
        for a in adapter.asked
        if a.headers.get("Authorization", "").startswith("Basic")
    }
    assert told == {"auth.example"}
    (put,) = [a for a in adapter.asked if a.method == "PUT" and "Authorization" in a.headers]
    assert (put.body, put.headers["Content-Type"]) == (BODY, DOCKER_V2)
    assert str(put.url).endswith("/v2/team/oar/manifests/latest")


def test_an_identity_token_is_changed_for_one_that_the_registry_takes() -> None:
    client, adapter = client_of(
        bearer("https://auth.example"),
        credential=Credential("<token>", token="identity"),  # noqa: S106
    )
    assert client.digest("oar:1") == DIGEST
    (asked,) = [a for a in adapter.asked if a.method == "POST"]
    assert "grant_type=refresh_token" in str(asked.body)
    assert "refresh_token=identity" in str(asked.body)


def test_a_password_is_not_sent_in_clear_to_where_a_registry_says() -> None:
    client, adapter = client_of(bearer("http://evil.example"))
    with pytest.raises(SlipwayError, match="a password to be sent in clear"):
        client.digest("oar:1")
    assert {urlsplit(str(a.url)).netloc for a in adapter.asked} == {"registry.example"}


def test_all_pages_of_tags_are_read() -> None:
    def answer(request: requests.PreparedRequest) -> Answer:
        if "last=b" in str(request.url):
            return 200, {}, b'{"tags": ["c"]}'
        link = '</v2/team/oar/tags/list?n=2&last=b>; rel="next"'
        return 200, {"Link": link}, b'{"tags": ["a", "b"]}'

    client, _ = client_of(answer)
    assert client.tags("oar") == ["a", "b", "c"]
    assert client_of(lambda _: (200, {}, b'{"tags": null}'))[0].tags("oar") == []


def test_a_registry_that_fails_is_told_in_its_own_words() -> None:
    body = b'{"errors": [{"message": "unknown error", "detail": "no space left on device"}]}'
    client, _ = client_of(lambda _: (500, {}, body))
    with pytest.raises(SlipwayError, match=r"registry\.example failed: HTTP 500") as caught:
        client.digest("oar:1")
    assert "no space left on device" in caught.value.cause
    assert caught.value.code == UNAVAILABLE


# -- no answer


def raising(*errors: Exception) -> Callable[[requests.PreparedRequest], Answer]:
    left = list(errors)

    def answer(request: requests.PreparedRequest) -> Answer:
        if left:
            raise left.pop(0)
        return manifest_answer(request)

    return answer


def test_http_is_tried_where_it_may_be_and_https_is_not_spoken() -> None:
    client, adapter = client_of(raising(requests.exceptions.SSLError()), insecure=True)
    assert client.digest("oar:1") == DIGEST
    assert client.digest("oar:1") == DIGEST
    assert [urlsplit(str(a.url)).scheme for a in adapter.asked] == ["https", "http", "http"]


def test_http_is_not_tried_anywhere_else() -> None:
    client, adapter = client_of(raising(requests.exceptions.SSLError("no TLS")))
    with pytest.raises(SlipwayError, match=r"certificate of registry\.example is not trusted"):
        client.digest("oar:1")
    assert len(adapter.asked) == 1


def test_a_registry_that_says_nothing_is_waited_for_once() -> None:
    client, adapter = client_of(raising(requests.exceptions.ReadTimeout()), insecure=True)
    with pytest.raises(SlipwayError, match="gave no answer within 3 s"):
        client.digest("oar:1")
    assert len(adapter.asked) == 1


def test_the_innermost_reason_is_told() -> None:
    error = requests.ConnectionError("HTTPSConnectionPool(host='registry.example'): Max retries")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    client, _ = client_of(raising(error))
    with pytest.raises(SlipwayError, match=r"registry\.example does not answer") as caught:
        client.digest("oar:1")
    assert caught.value.cause == "Connection refused"
