"""A workshop and a source tree in a temporary directory, for tests that decide and do not act."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from slipway.base import Base
from slipway.builds import Site
from slipway.engine import Docker, InPlace
from slipway.images import Recipe
from slipway.manifest import File, Isa, Layer, Manifest, ReleasedImage, Step, TestRun
from slipway.project import Project, Tree
from slipway.settings import Settings, Workshop
from slipway.variants import TABLE, Variant
from slipway.versions import Version

# The rows that a project has which names none.
ROWS = {name: row for name, row in TABLE.items() if not row.cuda}
EPOCH = 1_700_000_000  # 2023-11-14 22:13:20 UTC
VERSION = Version(
    pep440="1.2.0",
    debian="1.2.0",
    tag="1.2.0",
    commit="1a2b3c4d" * 5,
    dirty=False,
    epoch=EPOCH,
)
SCRIPTS = (
    *("apt-install", "cuda-install", "pip-install", "packages-dev.txt", "build", "test", "deb"),
    *("stage", "arrange", "check-requirements", "entrypoint", "gpu-probe", "preflight.c"),
    *("coverage", "docs", "emulate", "emulation-kit", "canary.c", "watch.c", "book", "read-book"),
    *("ssh-profile", "sbom", "bundle-install", "bundle-needed", "apt-index"),
    *("ssh-profile", "launch", "app-install"),
    *("jupyter/overrides.json", "jupyter/page_config.json"),
)


def make_workshop(root: Path, **settings: Any) -> Workshop:
    """A checkout with files where recipes and fingerprints look for them."""
    (root / "scripts").mkdir(parents=True, exist_ok=True)
    for name in SCRIPTS:
        (root / "scripts" / name).parent.mkdir(exist_ok=True)
        (root / "scripts" / name).write_text(f"{name}\n")
    for name in (
        "Dockerfile.app",
        "Dockerfile.book",
        "Dockerfile.dev",
        "Dockerfile.prod",
        "requirements-image.txt",
        "requirements-book.txt",
        "requirements-cuda.txt",
        "requirements-docs.txt",
    ):
        (root / name).write_text(f"{name}\n")
    (root / "requirements.txt").write_text("ruff==1.0 \\\n    --hash=sha256:0\n    # via x\n")
    kept = {"cache_dir": str(root / "cache"), **settings}
    return Workshop(root=root, settings=msgspec.convert(kept, Settings))


def make_project(**parts: Any) -> Project:
    least = {
        "name": "oar",
        "summary": "neural-network kernels",
        "license": "Apache-2.0",
        "maintainer": "Ann Other <ann@example.org>",
    }
    return msgspec.convert({**least, **parts}, Project)


def make_tree(
    source: Path,
    /,
    *,
    variants: Mapping[str, Variant] = ROWS,
    version: Version = VERSION,
    **parts: Any,
) -> Tree:
    source.mkdir(parents=True, exist_ok=True)
    file = source / "project.yaml"
    file.write_text("name: oar\n")
    (source / "CMakeLists.txt").write_text("project(oar VERSION 1.2.0)\n")
    project = make_project(**parts)
    return Tree(project=project, file=file, source=source, version=version, variants=variants)


def make_site(root: Path, *, host: bool = False, variant: str = "cpu", **parts: Any) -> Site:
    workshop = make_workshop(root)
    tree = make_tree(root / "examples" / "oar", **parts)
    if host:
        return Site(workshop, tree, variant, InPlace(workshop), "")
    return Site(workshop, tree, variant, Docker(workshop), "slipway-dev:0123456789ab")


def make_recipe(root: Path, **changes: Any) -> Recipe:
    dockerfile, file = root / "Dockerfile.x", root / "file"
    if not dockerfile.exists():
        dockerfile.write_text("FROM x\n")
        file.write_text("content\n")
    values: dict[str, Any] = {
        "kind": "dev",
        "dockerfile": dockerfile,
        "base": Base("debian:trixie-slim", "sha256:1"),
        "target": "dev",
        "arguments": {"A": "1"},
        "files": {"tools/file": file, "text": "words"},
        "labels": {"l": "1"},
    }
    return Recipe(**{**values, **changes})


def make_layer(
    letter: str, size: int, made_by: str = "RUN /run/slipway/tools/apt-install"
) -> Layer:
    return Layer(f"sha256:{letter * 64}", size, made_by)


def make_image(alias: str, variant: str, *layers: Layer, kind: str = "prod") -> ReleasedImage:
    digest = f"sha256:{images_mark(alias)}"
    return ReleasedImage(alias, kind, variant, digest, sum(x.size for x in layers), layers)


def images_mark(alias: str) -> str:
    return hashlib.sha256(alias.encode()).hexdigest()


BASE_LAYER = make_layer("a", 78_600_000, "bootstrapped debian:trixie-slim")
PYTHON_LAYER = make_layer("b", 83_900_000)


def make_manifest(version: str = "1.2.0", **changes: Any) -> Manifest:
    """A release of Oar in two variants with its book."""
    shared = (BASE_LAYER, PYTHON_LAYER)
    cpu = (*shared, make_layer("c", 3_600_000))
    files = [
        File(f"oar_{version}+deb13_amd64.deb", "deb", "cpu", 106_000, "1" * 64),
        File(f"oar-noavx_{version}+deb13_amd64.deb", "deb", "noavx", 98_000, "2" * 64),
        File(f"oar-{version}-cp312-abi3-linux_x86_64.whl", "wheel", "cpu", 240_000, "3" * 64),
    ]
    values: dict[str, Any] = {
        "project": "oar",
        "version": version,
        "tag": f"v{version}",
        "commit": VERSION.commit,
        "epoch": EPOCH,
        "is_rehearsal": False,
        "made_at": EPOCH + 3600.0,
        "variants": ("cpu", "noavx"),
        "files": tuple(files),
        "images": (
            make_image(f"oar:{version}", "cpu", *cpu),
            make_image(f"oar:{version}-noavx", "noavx", *shared, make_layer("d", 3_500_000)),
            make_image(
                f"oar-book:{version}", "cpu", *cpu, make_layer("e", 1_235_800_000), kind="book"
            ),
        ),
        "tests": (
            TestRun("built", "cpu", 199, ("test_on_a_gpu",), EPOCH + 100.0),
            TestRun("emulated on Nehalem", "noavx", 199, (), EPOCH + 200.0),
        ),
        "isa": (
            Isa("oar_1.2.0+deb13_amd64.deb", "cpu", "x86-64-v3", "x86-64-v3", 3, 41_222),
            Isa("oar-noavx_1.2.0+deb13_amd64.deb", "noavx", "x86-64-v2", "x86-64-v2", 3, 44_871),
        ),
        "steps": (
            Step("build", "cpu", 2.1, is_unchanged=False),
            Step("test", "cpu", 3.8, is_unchanged=False),
            Step("image", "noavx", 0.1, is_unchanged=True),
            Step("book", "cpu", 113.0, is_unchanged=False),
        ),
        "tools": {"slipway": "0.1.0", "gcc": "14.2.0"},
        "base": "sha256:0123",
    }
    return Manifest(**{**values, **changes})
