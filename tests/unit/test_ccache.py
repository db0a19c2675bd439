from __future__ import annotations

from pathlib import Path

import pytest

from slipway import ccache
from slipway.ccache import Counts
from slipway.errors import BAD_CONFIG, SlipwayError
from slipway.settings import Settings, check_remote_cache


def test_its_log_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "# /src/a.cc\ndirect_cache_hit\nlocal_storage_hit\n"
        "# /src/b.cc\ndirect_cache_miss\npreprocessed_cache_hit\nlocal_storage_miss\n"
        "remote_storage_hit\nremote_storage_read_hit\nremote_storage_read_hit\n"
        "# /src/c.cc\ncache_miss\ndirect_cache_miss\npreprocessed_cache_miss\n"
        "remote_storage_miss\nremote_storage_read_miss\n"
        "# /src/d.cc\ncache_miss\nremote_storage_error\n"
        "# /src/cache_miss\n"
    )
    assert ccache.counts(log) == Counts(compiled=4, hits=2, shared=1, errors=1)


def test_without_a_log_nothing_was_compiled(tmp_path: Path) -> None:
    assert str(ccache.counts(tmp_path / "log")) == "nothing to compile"
    assert str(Counts(12, 10)) == "10 of 12 compilations from the cache"
    assert str(Counts(12, 10, 8)).endswith("from the cache, 8 of them from the team's")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("redis://cache.example", "cache.example", 6379),
        ("redis://s3cret@10.0.0.1:7000", "10.0.0.1", 7000),
        ("redis://ann:s3c:ret@cache/1", "cache", 6379),
        ("http://cache.example/team", "cache.example", 80),
        ("http://[fd00::1]:8080/team|read-only=true", "[fd00::1]", 8080),
    ],
)
def test_what_ccache_speaks_is_taken(url: str, host: str, port: int) -> None:
    settings = Settings(ccache_remote=url)
    check_remote_cache(settings)
    assert ccache.server(settings) == (host, port)
    assert "s3c" not in ccache.shown(settings)


@pytest.mark.parametrize(
    "url",
    [
        *("rediss://cache", "https://cache/x", "redis:/cache", "cache:6379", "redis://"),
        *("redis://ca che", "redis://cache:port", "redis://cache|", "file:///srv/cache"),
    ],
)
def test_what_it_does_not_is_refused(url: str) -> None:
    with pytest.raises(SlipwayError) as caught:
        check_remote_cache(Settings(ccache_remote=url))
    assert caught.value.code == BAD_CONFIG
    assert "redis://HOST" in caught.value.cause


def test_a_refusal_does_not_tell_the_password() -> None:
    with pytest.raises(SlipwayError) as caught:
        check_remote_cache(Settings(ccache_remote="rediss://ann:s3@cret@cache"))
    assert "rediss://cache" in caught.value.what
    assert "cret" not in caught.value.what + caught.value.cause


def test_a_server_that_hangs_costs_two_seconds_unless_somebody_says_otherwise() -> None:
    plain = ccache.remote(Settings(ccache_remote="redis://cache"), in_container=True)
    assert plain == {"CCACHE_REMOTE_STORAGE": "redis://cache|operation-timeout=2000"}
    own = "redis://cache|read-only=true|operation-timeout=500"
    chosen = ccache.remote(Settings(ccache_remote=own), in_container=True)
    assert chosen == {"CCACHE_REMOTE_STORAGE": own}
    assert ccache.remote(Settings(), in_container=True) == {}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7000", "[::1]"])
def test_a_container_has_a_localhost_of_its_own(host: str) -> None:
    settings = Settings(ccache_remote=f"redis://{host}")
    with pytest.raises(SlipwayError, match="no container reaches a cache at"):
        ccache.remote(settings, in_container=True)
    assert ccache.remote(settings, in_container=False)
