"""An apt repository: what goes into it, whose key signs it, what its users type."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from slipway import aptrepo, manifest
from slipway.aptrepo import Key
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from tests.unit.fakes import EPOCH, make_manifest

LISTING = """\
tru::1:1700000000:0:3:1:5
sec:u:255:22:0123456789ABCDEF:1700000000:::u:::scESC:::+::ed25519:::0:
fpr:::::::::AAAA0123456789ABCDEFAAAA0123456789ABCDEF:
grp:::::::::BBBB:
uid:u::::1700000000::CCCC::Ann Other <ann@example.org>::::::::::0:
uid:u::::1700000000::DDDD::Ann Other <ann@home.example>::::::::::0:
ssb:u:255:18:FEDCBA9876543210:1700000000::::::e:::+::cv25519::
fpr:::::::::FFFF0123456789ABCDEFFFFF0123456789ABCDEF:
sec:u:255:22:1111111111111111:1700000000:::u:::scESC:::+::ed25519:::0:
fpr:::::::::1111000000000000000011110000000000000000:
uid:u::::1700000000::EEEE::Releases <releases@example.org>::::::::::0:
"""


def test_gpg_names_each_key_by_its_primary_fingerprint() -> None:
    assert aptrepo.keys_in(LISTING) == [
        Key("AAAA0123456789ABCDEFAAAA0123456789ABCDEF", "Ann Other <ann@example.org>"),
        Key("1111000000000000000011110000000000000000", "Releases <releases@example.org>"),
    ]
    assert aptrepo.keys_in("") == []


def test_the_packages_of_all_releases_go_into_one_pool(tmp_path: Path) -> None:
    old, new = make_manifest("1.1.0"), make_manifest("1.2.0")
    pool = aptrepo.pool_of({tmp_path / "b": new, tmp_path / "a": old})
    assert list(pool) == [
        "pool/oar/oar-noavx_1.1.0+deb13_amd64.deb",
        "pool/oar/oar-noavx_1.2.0+deb13_amd64.deb",
        "pool/oar/oar_1.1.0+deb13_amd64.deb",
        "pool/oar/oar_1.2.0+deb13_amd64.deb",
    ]
    file = tmp_path / "b" / "oar_1.2.0+deb13_amd64.deb"
    assert pool["pool/oar/oar_1.2.0+deb13_amd64.deb"] == (file, "1" * 64)


def test_one_name_for_two_packages_is_refused(tmp_path: Path) -> None:
    one = make_manifest()
    other = replace(one, files=(replace(one.files[0], sha256="9" * 64),))
    with pytest.raises(SlipwayError, match="differ, and have one name") as caught:
        aptrepo.pool_of({tmp_path / "a": one, tmp_path / "b": other})
    assert caught.value.code == BAD_DATA
    again = replace(one, files=one.files[:1])
    assert len(aptrepo.pool_of({tmp_path / "a": one, tmp_path / "b": again})) == 2


def test_the_date_is_that_of_the_newest_release() -> None:
    found = [make_manifest(epoch=EPOCH), make_manifest(epoch=EPOCH - 86400)]
    assert aptrepo.date_of(found) == "Tue, 14 Nov 2023 22:13:20 UTC"


def test_what_has_no_manifest_was_not_released(tmp_path: Path) -> None:
    (tmp_path / "oar-1.3.0").mkdir()
    with pytest.raises(SlipwayError, match="no release with a Debian package") as caught:
        aptrepo.releases_in(tmp_path, rehearsals=False)
    assert caught.value.code == NO_INPUT
    for version, epoch in (("1.2.0", EPOCH), ("1.10.0", EPOCH - 5)):
        (tmp_path / f"oar-{version}").mkdir()
        manifest.write(tmp_path / f"oar-{version}", make_manifest(version, epoch=epoch))
    found = aptrepo.releases_in(tmp_path, rehearsals=False)
    assert [release.version for release in found.values()] == ["1.10.0", "1.2.0"]  # by date


def test_a_rehearsal_counts_only_where_it_is_asked_for(tmp_path: Path) -> None:
    manifest.write(tmp_path, make_manifest())
    (tmp_path / "oar-1.2.0").mkdir()
    manifest.write(tmp_path / "oar-1.2.0", make_manifest(is_rehearsal=True))
    with pytest.raises(SlipwayError, match="no release"):
        aptrepo.releases_in(tmp_path, rehearsals=False)
    assert list(aptrepo.releases_in(tmp_path, rehearsals=True)) == [tmp_path / "oar-1.2.0"]


def test_the_advice_is_a_deb822_file_with_the_key_beside() -> None:
    text = aptrepo.advice("oar", "https://apt.example.org")
    assert aptrepo.sources("oar", "https://apt.example.org") in text
    assert "\nSigned-By: /etc/apt/keyrings/oar.asc\n" in text
    assert "sudo curl -fsSLo /etc/apt/keyrings/oar.asc https://apt.example.org/oar.asc" in text
