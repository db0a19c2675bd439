"""Settings: the one table of defaults, and what overrides, misspells or breaks it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from invoke.config import Config

from slipway import settings
from slipway.errors import BAD_CONFIG, SlipwayError
from slipway.project import Project
from slipway.settings import (
    DEFAULTS,
    ROOT,
    Settings,
    Workshop,
    check_environment,
    check_file,
    check_registries,
    convert,
    files_on,
    load,
)
from slipway.variants import TABLE
from tests.unit.fakes import make_workshop


def refused(data: object, kind: type = Settings) -> SlipwayError:
    with pytest.raises(SlipwayError) as caught:
        convert(data, kind, "the file", fix="mend it")
    assert caught.value.code == BAD_CONFIG
    assert caught.value.what == "the file is not valid"
    return caught.value


# -- types and names


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ({"base": 5}, "base: Expected `str`, got `int`"),
        ({"pull_wait_s": "10"}, "pull_wait_s: Expected `int`, got `str`"),
        ({"budgets": {"dev_mb": "big"}}, "budgets.dev_mb: Expected `int`, got `str`"),
        ({"mirrors": "http://mirror"}, "mirrors: Expected `object`, got `str`"),
        ({"default_variants": ["cpu", 5]}, "default_variants.1: Expected `str`, got `int`"),
    ],
)
def test_a_wrong_type_is_named_with_its_key(data: object, cause: str) -> None:
    assert refused(data).cause == cause


def test_a_bare_on_or_off_is_told_to_stand_in_quotes(tmp_path: Path) -> None:
    for word in ("on", "off"):
        written(tmp_path, f"gpu: {word}\n")
        with pytest.raises(SlipwayError) as caught:
            check_file(tmp_path / "invoke.yaml")
        assert caught.value.code == BAD_CONFIG
        assert caught.value.cause.startswith("gpu: Expected `str`, got `bool`; to YAML a bare on")
        written(tmp_path, f"gpu: '{word}'\n")
        check_file(tmp_path / "invoke.yaml")
        assert load(configured(tmp_path)).settings.gpu == word
        assert load(configured(tmp_path, INVOKE_GPU="auto")).settings.gpu == "auto"


def test_an_unknown_gpu_mode_is_answered_with_the_nearest() -> None:
    assert refused({"gpu": "onn"}).cause.startswith("gpu: no 'onn'; did you mean 'on'?")


def test_an_error_in_a_row_names_the_row() -> None:
    rows = {"cpu": {"isa": "x86-64-v3"}, "gpu": {"isa": 5}}
    assert refused({"variants": rows}).cause == "variants.gpu.isa: Expected `str`, got `int`"
    parts = {
        "name": "x",
        "summary": "x",
        "license": "x",
        "maintainer": "x",
        "variants": {"cpu": {}, "noavx": {"options": {"A": "1", "B": 2}}},
    }
    cause = refused(parts, Project).cause
    assert cause == "variants.noavx.options.B: Expected `str`, got `int`"


@pytest.mark.parametrize(
    ("data", "path", "meant"),
    [
        ({"bsae": "x"}, "bsae", "base"),
        ({"mirrors": {"atp": "x"}}, "mirrors.atp", "apt"),
        ({"variants": {"gpu": {"isa": "x", "suffixx": "y"}}}, "variants.gpu.suffixx", "suffix"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(data: object, path: str, meant: str) -> None:
    assert refused(data).cause.startswith(f"{path}: unknown key; did you mean '{meant}'?")


def test_an_unknown_engine_is_answered_with_the_nearest() -> None:
    cause = refused({"engine": "dockerr"}).cause
    assert "dockerr" in cause
    assert "did you mean 'docker'?" in cause


@pytest.mark.parametrize("data", [None, [], "text", {"variants": {1: {"isa": "x"}}}, {1: 2}])
def test_what_is_no_mapping_of_names_is_refused(data: object) -> None:
    assert "xpected" in refused(data).cause


def test_the_defaults_are_valid_settings() -> None:
    assert msgspec.convert(DEFAULTS, Settings) == Settings()


# -- files


def written(folder: Path, text: str) -> Path:
    file = folder / "invoke.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "base: debian:bookworm-slim\n",
        "variants: {cpu: {about: mine}}\n",
        "variants: {fast: {isa: x86-64-v4, suffix: -fast}}\n",
        "run: {echo: true}\n",  # invoke's own
    ],
)
def test_a_good_file_passes(tmp_path: Path, text: str) -> None:
    check_file(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mirrors: http://mirror\n", "mirrors: Expected `object`, got `str`"),
        ("mirrors:\n", "mirrors: Expected `object`, got `null`"),
        ("engine: {a: b}\n", "engine: "),
        ("- base\n", "found a list"),
        ("engine: [docker\n", "while parsing"),
        ("bsae: x\n", "bsae: unknown key; did you mean 'base'?"),
    ],
)
def test_a_file_that_invoke_would_die_of_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SlipwayError) as caught:
        check_file(written(tmp_path, text))
    assert caught.value.code == BAD_CONFIG
    assert str(tmp_path / "invoke.yaml") in caught.value.what
    assert words in caught.value.cause


def test_a_file_that_is_not_there_is_invoke_s_to_complain_of(tmp_path: Path) -> None:
    check_file(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (["invoke", "build"], []),
        (["invoke", "-f", "a.yaml", "build"], ["a.yaml"]),
        (["invoke", "-fa.yaml", "build"], ["a.yaml"]),
        (["invoke", "-f=a.yaml", "build"], ["a.yaml"]),
        (["invoke", "--config", "a.yaml", "build"], ["a.yaml"]),
        (["invoke", "--config=a.yaml", "build"], ["a.yaml"]),
        (["invoke", "run", "x.py", "--", "-f", "a.yaml"], []),
    ],
)
def test_the_files_on_a_command_line_are_found(argv: list[str], files: list[str]) -> None:
    assert files_on(argv) == [Path(file) for file in files]


def uncommented() -> str:
    """invoke.yaml with each ``#key`` set: explanations are the lines that begin with ``# ``."""
    lines = (ROOT / "invoke.yaml").read_text().splitlines()
    return "\n".join(line[1:] for line in lines if re.match(r"#(\w|  +\w)", line))


def keys_of(data: Any, above: str = "") -> set[str]:
    if not isinstance(data, dict):
        return set()
    return {f"{above}{key}" for key in data}.union(
        *(keys_of(value, f"{above}{key}.") for key, value in data.items())
    )


def test_invoke_yaml_lists_every_key_and_no_other() -> None:
    assert keys_of(yaml.safe_load(uncommented())) == keys_of(DEFAULTS)


def test_invoke_yaml_shows_the_defaults() -> None:
    assert msgspec.convert(yaml.safe_load(uncommented()), Settings) == Settings()


def test_invoke_yaml_itself_sets_nothing() -> None:
    assert yaml.safe_load((ROOT / "invoke.yaml").read_text()) is None


# -- invoke's cascade


def configured(project: Path, runtime: Path | None = None, **environ: str) -> Config:
    """What invoke makes of our defaults, an invoke.yaml, variables and a -f file."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("INVOKE_")]:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        config = Config(lazy=True)
        config.load_defaults(Config.global_defaults())
        config.set_project_location(project)
        config.load_project()
        if runtime:
            config.set_runtime_path(runtime)
            config.load_runtime()
        config.load_collection(DEFAULTS)
        config.load_shell_env()
        return config


def test_what_is_set_in_the_file_is_used_and_the_rest_stays(tmp_path: Path) -> None:
    written(tmp_path, "base: debian:bookworm-slim\nmirrors: {pip: http://pip}\n")
    workshop = load(configured(tmp_path))
    assert workshop.settings.base == "debian:bookworm-slim"
    assert workshop.settings.mirrors == settings.Mirrors(pip="http://pip")
    assert workshop.settings.budgets == settings.Budgets()
    assert workshop.root == ROOT


def test_a_variable_wins_over_the_file_and_f_over_both(tmp_path: Path) -> None:
    written(tmp_path, "base: file\nshm_size: 2g\nccache_size: 1G\n")
    more = tmp_path / "more.yaml"
    more.write_text("base: more\n")
    variables = {"INVOKE_BASE": "variable", "INVOKE_SHM_SIZE": "3g", "INVOKE_BUDGETS_DEV_MB": "9"}
    found = load(configured(tmp_path, more, **variables)).settings
    assert (found.base, found.shm_size, found.ccache_size) == ("more", "3g", "1G")
    assert found.budgets.dev_mb == 9


def test_a_fifth_variant_is_one_more_row(tmp_path: Path) -> None:
    written(tmp_path, "variants: {fast: {isa: x86-64-v4, suffix: -fast}}\n")
    assert list(load(configured(tmp_path)).settings.variants) == [*TABLE, "fast"]


def test_a_gpu_that_the_compiler_does_not_know_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "variants: {gpu: {cuda: [sm_99x]}}\n")
    with pytest.raises(SlipwayError, match=r"variants\.gpu\.cuda: .* no 'sm_99x'") as caught:
        load(configured(tmp_path))
    assert caught.value.code == BAD_CONFIG


def test_a_row_that_takes_another_s_suffix_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "variants: {fast: {isa: x86-64-v4}}\n")
    with pytest.raises(SlipwayError, match="same suffix"):
        load(configured(tmp_path))


# -- the environment


@pytest.mark.parametrize("name", ["DEFAULT_VARIANTS", "VARIANTS", "MIRRORS", "BUDGETS"])
def test_a_variable_for_what_is_no_single_value_is_refused(name: str) -> None:
    with pytest.raises(SlipwayError, match=f"INVOKE_{name}: '{name.lower()}' is not a") as caught:
        check_environment({f"INVOKE_{name}": "cpu"})
    assert caught.value.code == BAD_CONFIG
    assert "invoke.yaml" in caught.value.fix[0]


@pytest.mark.parametrize("name", ["PULL_WAIT_S", "BUDGETS_DEV_MB"])
@pytest.mark.parametrize("value", ["abc", "1.5", "", "10 s"])
def test_a_variable_that_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(SlipwayError, match=f"INVOKE_{name}") as caught:
        check_environment({f"INVOKE_{name}": value})
    assert caught.value.code == BAD_CONFIG


def test_single_values_may_be_set_by_variables() -> None:
    check_environment(
        {
            "INVOKE_BASE": "x",
            "INVOKE_PULL_WAIT_S": "20",
            "INVOKE_BUDGETS_DEV_MB": "900",
            "INVOKE_MIRRORS_APT": "http://mirror",
            "INVOKE_RUN_ECHO": "1",
            "HOME": "/root",
        }
    )


# -- the workshop


def test_two_checkouts_are_told_apart_and_one_stays_itself(tmp_path: Path) -> None:
    a, b = (Workshop(root=tmp_path / name, settings=Settings()) for name in "ab")
    assert a.checkout != b.checkout
    assert re.fullmatch(r"[0-9a-f]{8}", a.checkout)
    assert Workshop(root=tmp_path / "a", settings=Settings(base="x")).checkout == a.checkout


@pytest.mark.parametrize(
    ("setting", "xdg", "expected"),
    [
        ("", "", "home/.cache/slipway"),
        ("", "xdg", "xdg/slipway"),
        ("mine", "xdg", "checkout/mine"),
        ("~/mine", "xdg", "home/mine"),
        ("{}/far", "xdg", "far"),
    ],
)
def test_where_the_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, xdg: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / xdg) if xdg else "")
    chosen = Settings(cache_dir=setting.format(tmp_path))
    assert Workshop(root=tmp_path / "checkout", settings=chosen).cache == tmp_path / expected


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_bundle")
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"])
def test_the_environment_s_ca_bundle_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    assert make_workshop(tmp_path).ca_bundle == tmp_path / "ca.pem"


@pytest.mark.usefixtures("no_bundle")
def test_a_variable_that_names_no_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "ca.pem"))
    assert make_workshop(tmp_path).ca_bundle == tmp_path / "ca.pem"


def test_the_setting_s_ca_bundle_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine.pem", "other.pem"):
        (tmp_path / name).write_text("a certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    assert make_workshop(tmp_path, ca_bundle="mine.pem").ca_bundle == tmp_path / "mine.pem"


def test_a_ca_bundle_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"ca_bundle: no file .*gone\.pem") as caught:
        _ = make_workshop(tmp_path, ca_bundle="gone.pem").ca_bundle
    assert caught.value.code == BAD_CONFIG


# -- registries


@pytest.mark.parametrize(
    "name",
    [
        "registry.example",
        "registry.example:5000/team/tools_2",
        "localhost",
        "127.0.0.1:5000/",
        "lab:5000",
        "docker.io/company",
    ],
)
def test_a_registry_is_a_host_and_perhaps_a_path(name: str) -> None:
    check_registries(Settings(registry=name, registry_mirrors=(name,)))


@pytest.mark.parametrize(
    "name",
    ["https://registry.example", "company", "lab:port", "registry.example/Team", "a b:1", "/"],
)
def test_what_docker_would_not_take_for_a_registry_is_refused(name: str) -> None:
    settings = (Settings(registry=name), Settings(registry="lab:1", registry_mirrors=(name,)))
    for one in settings:
        with pytest.raises(SlipwayError, match="is no registry") as caught:
            check_registries(one)
        assert caught.value.code == BAD_CONFIG


def test_mirrors_need_a_registry() -> None:
    with pytest.raises(SlipwayError, match="registry_mirrors is set, and registry is not"):
        check_registries(Settings(registry_mirrors=("lab:5000",)))
