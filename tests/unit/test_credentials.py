"""Credentials: where Docker keeps them, what its helpers answer, and that nothing shows them."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from slipway import credentials, processes
from slipway.credentials import Credential
from slipway.errors import BAD_CONFIG, USAGE, SlipwayError

HOST = "registry.example:5000"
SECRET = "pass:wörd"  # noqa: S105


def entry(user: str = "ann", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_docker_config_names_the_directory() -> None:
    home = Path("/home/ann")
    assert credentials.directory({"DOCKER_CONFIG": "/x"}, home) == Path("/x")
    assert credentials.directory({"DOCKER_CONFIG": ""}, home) == home / ".docker"
    assert credentials.directory({}, home) == home / ".docker"


@pytest.mark.parametrize(
    ("key", "host"),
    [
        (HOST, HOST),
        (f"https://{HOST}/v1/", HOST),
        (f"http://{HOST}", HOST),
        (f"{HOST}/v2/", HOST),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_an_entry_is_found_however_docker_has_spelt_its_key(key: str, host: str) -> None:
    found = credentials.stored({"auths": {"other:5000": entry("no"), key: entry()}}, host)
    assert found == Credential("ann", SECRET)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"auths": None},
        {"auths": {HOST: {}}},
        {"auths": {"registry.example": entry()}},
        {"auths": {f"{HOST}0": entry()}},
    ],
)
def test_another_registry_s_password_is_never_taken(config: dict[str, Any]) -> None:
    assert credentials.stored(config, HOST) is None


@pytest.mark.parametrize("auth", ["%%%", base64.b64encode(b"no colon").decode(), "/w=="])
def test_an_entry_that_is_no_user_and_password_is_an_error(auth: str) -> None:
    with pytest.raises(SlipwayError, match="no user and password") as caught:
        credentials.stored({"auths": {HOST: {"auth": auth}}}, HOST)
    assert caught.value.code == BAD_CONFIG
    assert auth not in str(caught.value)


def test_an_identity_token_takes_the_password_s_place() -> None:
    found = credentials.stored({"auths": {HOST: {**entry("ann", ""), "identitytoken": "t"}}}, HOST)
    assert found == Credential("ann", token="t")  # noqa: S106


@pytest.mark.parametrize(
    ("config", "helper"),
    [
        ({}, ""),
        ({"credsStore": "desktop"}, "desktop"),
        ({"credHelpers": {HOST: "pass"}, "credsStore": "desktop"}, "pass"),
        ({"credHelpers": {"other": "pass"}, "credsStore": "desktop"}, "desktop"),
        ({"credHelpers": {HOST: ""}, "credsStore": "desktop"}, ""),
    ],
)
def test_the_helper_of_this_registry_comes_before_the_one_of_all(
    config: dict[str, Any], helper: str
) -> None:
    assert credentials.helper_of(config, HOST) == helper


def test_what_a_helper_answers() -> None:
    def says(user: str) -> str:
        return json.dumps({"ServerURL": HOST, "Username": user, "Secret": SECRET})

    assert credentials.answered("x", 0, says("ann")) == Credential("ann", SECRET)
    assert credentials.answered("x", 0, says("<token>")) == Credential("<token>", token=SECRET)
    missing = "credentials not found in native keychain\n"
    assert credentials.answered("x", 1, missing) is None


@pytest.mark.parametrize(("status", "text"), [(1, "locked"), (0, "{}"), (0, f"[{SECRET}")])
def test_a_helper_that_fails_is_named_and_not_quoted(status: int, text: str) -> None:
    with pytest.raises(SlipwayError, match="docker-credential-x gave no") as caught:
        credentials.answered("x", status, text)
    assert SECRET not in str(caught.value)


def test_a_helper_is_asked_on_its_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "box", "auths": {HOST: {}}}))
    asked: list[tuple[list[str], str]] = []

    def look(argv: list[str], *, typed: str) -> subprocess.CompletedProcess[str]:
        asked.append((argv, typed))
        answer = json.dumps({"Username": "ann", "Secret": SECRET})
        return subprocess.CompletedProcess(argv, 0, answer, "")

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(processes, "look", look)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert credentials.find(HOST) == Credential("ann", SECRET)
    assert asked == [(["docker-credential-box", "get"], HOST)]


@pytest.mark.parametrize("helper", ["not-there", "../evil", "a b"])
def test_a_helper_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": helper}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: name if "not-there" not in name else None)
    with pytest.raises(SlipwayError, match=f"no program docker-credential-{helper}"):
        credentials.find(HOST)


@pytest.mark.parametrize("text", [f'{{"auths": "{SECRET}', "[]"])
def test_a_config_that_is_no_json_is_an_error_that_shows_nothing_of_it(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SlipwayError, match="no JSON object") as caught:
        credentials.read_config(tmp_path)
    assert SECRET not in str(caught.value)


def test_without_a_config_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nowhere"))
    assert credentials.find(HOST) is None


def test_a_credential_does_not_show_its_secrets() -> None:
    shown = repr(Credential("ann", SECRET, "t0ken"))
    assert SECRET not in shown
    assert "t0ken" not in shown


def test_the_password_on_standard_input_is_one_line() -> None:
    assert credentials.first_line(f"{SECRET}\n") == SECRET
    assert credentials.first_line(f" {SECRET} \r\n") == f" {SECRET} "
    for text in ("", "\n", "one\ntwo\n"):
        with pytest.raises(SlipwayError) as caught:
            credentials.first_line(text)
        assert caught.value.code == USAGE
        assert "two" not in str(caught.value)


def test_a_private_configuration_has_the_password_and_all_that_docker_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "docker"
    (ours / "contexts").mkdir(parents=True)
    before = {"credsStore": "desktop", "currentContext": "far", "auths": {"other": entry("eve")}}
    (ours / "config.json").write_text(json.dumps(before))
    monkeypatch.setenv("DOCKER_CONFIG", str(ours))
    with credentials.private_config(HOST, Credential("ann", SECRET)) as variables:
        place = Path(variables["DOCKER_CONFIG"])
        config = json.loads((place / "config.json").read_text())
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE((place / "config.json").stat().st_mode) == 0o600
        assert (place / "contexts").resolve() == ours / "contexts"
    assert not place.exists()
    # Docker would ask its store otherwise, which knows another password or none.
    assert credentials.helper_of(config, HOST) == ""
    assert credentials.helper_of(config, "other") == "desktop"
    assert credentials.stored(config, HOST) == Credential("ann", SECRET)
    assert config["currentContext"] == "far"
    assert config["auths"]["other"] == before["auths"]["other"]  # type: ignore[index]
    assert json.loads((ours / "config.json").read_text()) == before


def test_without_a_password_docker_s_own_configuration_is_used() -> None:
    with credentials.private_config(HOST, None) as variables:
        assert variables == {}
