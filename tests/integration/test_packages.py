"""The packages as their users have them: installed with apt in an image that holds nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from slipway import base
from slipway.settings import Settings, Workshop
from slipway.variants import TABLE
from tests.integration.conftest import Built
from tests.integration.workbench import Checkout, succeed

MODULE = "/usr/lib/python3/dist-packages/oar"

# One container for the whole life of a package; each step says what it saw.
LIFE = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
quietly() {{
  apt-get --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/tmp/log 2>&1 || {{
    cat /tmp/log
    exit 1
  }}
}}
quietly update
quietly install /first/oar_*+deb13_*.deb
python3 -c 'import oar; print("installed", oar.__version__, oar.build_info()["variant"])'
ldconfig -p | grep -q liboar.so.0
quietly install /later/oar_*.deb
python3 -c 'import oar; print("upgraded", oar.__version__)'
quietly install /first/oar-noavx_*+deb13_*.deb
python3 -c 'import oar; print("replaced", oar.build_info()["variant"])'
dpkg-query -Wf 'state ${{db:Status-Abbrev}} ${{Package}}\\n' oar oar-noavx
dpkg-query --listfiles oar-noavx >/tmp/files
quietly purge oar-noavx
while read -r path; do [ -d "$path" ] || [ ! -e "$path" ] || echo "left $path"; done </tmp/files
[ ! -e {MODULE} ] || find {MODULE} | sed 's/^/left /'
! python3 -c 'import oar' 2>/dev/null && echo gone
"""


def packages(checkout: Checkout) -> Path:
    return next((checkout.root / "dist").glob("oar-*"))


def test_a_package_is_installed_upgraded_replaced_and_removed_by_apt_alone(
    built: Built, later: Checkout
) -> None:
    succeed(later.invoke("deb"))
    image = base.ensure_base(Workshop(built.checkout.root, Settings())).reference
    argv = ["docker", "run", "--rm", "--label", f"slipway.checkout={built.checkout.name}"]
    for name, checkout in (("first", built.checkout), ("later", later)):
        directory = str(packages(checkout)).replace('"', '""')
        argv += ["--mount", f'type=bind,"source={directory}",target=/{name},readonly']
    done = subprocess.run(
        [*argv, image, "sh", "-c", LIFE], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    old, new = (packages(c).name.removeprefix("oar-") for c in (built.checkout, later))
    assert f"installed {old} cpu" in said
    assert old != new
    assert f"upgraded {new}" in said
    assert "replaced noavx" in said
    states = [line.split()[1:] for line in said.splitlines() if line.startswith("state ")]
    assert ["ii", "oar-noavx"] in states
    assert ["ii", "oar"] not in states
    assert "left " not in said, said
    assert "gone" in said


@pytest.mark.parametrize("variant", ["cpu", "noavx"])
def test_debug_symbols_are_kept_beside_and_not_in_the_package(
    built: Built, variant: str, tmp_path: Path
) -> None:
    name = "oar_" if variant == "cpu" else "oar-noavx_"
    deb = next(packages(built.checkout).glob(f"{name}*+deb13_*.deb"))
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(tmp_path)], check=True)
    libraries = [p for p in tmp_path.rglob("*.so*") if p.is_file() and not p.is_symlink()]
    assert len(libraries) == 3  # the library, its Python module, and the module that asks the CPU
    for library in libraries:
        sections = readelf("--sections", library)
        assert ".debug_info" not in sections
        identity = readelf("--notes", library).partition("Build ID: ")[2].split()[0]
        kept = built.checkout.out / "oar" / variant / "deb" / "debug" / ".build-id"
        symbols = kept / identity[:2] / f"{identity[2:]}.debug"
        assert ".debug_info" in readelf("--sections", symbols)


def readelf(what: str, file: Path) -> str:
    done = subprocess.run(
        ["readelf", "--wide", what, str(file)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_each_variant_stands_in_for_the_other_and_never_beside_it(built: Built) -> None:
    names = {f"oar{row.suffix}" for row in TABLE.values()}
    # Those of the first `all`; what other tests have packaged since lies beside them.
    for name in ("oar", "oar-noavx"):
        deb = next(packages(built.checkout).glob(f"{name}_*+deb13_*.deb"))
        wanted = "${Package}|${Provides}|${Conflicts}|${Replaces}"
        argv = ["dpkg-deb", "--show", "--showformat", wanted]
        said = subprocess.run([*argv, str(deb)], capture_output=True, text=True, check=True).stdout
        found, *fields = said.split("|")
        assert found == name
        for field in fields:
            assert {item.split()[0] for item in field.split(",")} == names - {name}


def test_what_a_package_depends_on_was_found_by_debians_own_tools(built: Built) -> None:
    deb = next(packages(built.checkout).glob("oar_*+deb13_*.deb"))
    argv = ["dpkg-deb", "--field", str(deb), "Depends"]
    depends = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found: Any = {item.split()[0]: item.strip() for item in depends.split(",")}
    # libgomp is what OpenMP needs: nobody wrote it down, dpkg-shlibdeps saw it.
    assert {"libc6", "libstdc++6", "libgomp1", "python3", "python3-numpy"} <= set(found)
    assert "(>=" in found["libc6"]
    assert "(>= 3.13" in found["python3"]  # the stable ABI of Debian 13's Python
