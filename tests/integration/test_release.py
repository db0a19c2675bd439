"""``invoke release``: what is refused before anything is made, what is published, and when."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import manifest
from slipway.fetched import sha256
from slipway.verification import how
from tests.integration.conftest import Built, directory_name
from tests.integration.workbench import (
    Checkout,
    Done,
    clone,
    commit,
    containers,
    git,
    give_to,
    refused,
    runs,
    serving,
    succeed,
    tmpfs,
    tree,
    wait_for,
)

# Waits in CTest until a file appears where it is built: a release in the middle, seen from outside.
GATE = """\
add_test(NAME gate COMMAND
  bash -c "for i in {1..6000}; do [[ -e $0 ]] && exit 0; sleep 0.1; done; exit 9"
  "${CMAKE_BINARY_DIR}/open")
"""


@pytest.fixture
def repository(area: Path, request: pytest.FixtureRequest) -> Path:
    """A CMake project of three files in git, with an annotated tag."""
    return tracked(tree(area / "released" / directory_name(request)))


def tracked(top: Path) -> Path:
    git(top, "init", "--quiet")
    git(top, "add", "--all")
    git(top, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "first")
    annotate(top, "v1.2.0")
    return top


def annotate(top: Path, name: str, *more: str) -> None:
    git(top, "-c", "tag.gpgsign=false", "tag", "--annotate", "--message", name, name, *more)


def release(checkout: Checkout, top: Path, *flags: str, **more: Any) -> Done:
    return checkout.invoke("release", "--project", str(top), *flags, **more)


def dist(checkout: Checkout) -> Path:
    return checkout.root / "dist"


def listed(directory: Path) -> dict[str, str]:
    """Every file of a directory by its digest; what is hidden, too."""
    files = (f for f in directory.rglob("*") if f.is_file())
    return {str(f.relative_to(directory)): sha256(f) for f in files}


@pytest.fixture
def checkout(built: Built) -> Iterator[Checkout]:
    """The checkout of all tests, in which no release of the tiny project is."""
    yield built.checkout
    for pattern in ("tiny-*", ".tiny-*", "apt-rehearsals"):
        for made in dist(built.checkout).glob(pattern):
            if made.is_dir():
                shutil.rmtree(made)
            else:
                made.unlink()
    shutil.rmtree(built.checkout.out / "release" / "tiny", ignore_errors=True)


# -- what is refused, before anything is made


def nothing_was_made(checkout: Checkout) -> bool:
    home = checkout.out / "release" / "tiny" / "out"
    return not home.exists() and not list(dist(checkout).glob("*tiny-1*"))


def test_one_of_tag_and_rehearsal_is_wanted(checkout: Checkout, repository: Path) -> None:
    refused(release(checkout, repository), 64, "--tag", "--rehearse")
    refused(release(checkout, repository, "--tag", "v1.2.0", "--rehearse"), 64, "together")


def test_a_dirty_tree(checkout: Checkout, repository: Path) -> None:
    (repository / "one.cc").write_text("int one() { return 3; }\n")
    (repository / "new.cc").write_text("")
    for flags in (["--tag", "v1.2.0", "--yes"], ["--rehearse"]):
        refused(release(checkout, repository, *flags), 65, "M one.cc", "?? new.cc", "git commit")
    assert nothing_was_made(checkout)


def test_a_dirty_slipway(scratch: Checkout, repository: Path) -> None:
    with (scratch.root / "scripts" / "deb").open("a") as script:
        script.write("# a change\n")
    # What `init` writes of other trees does not count.
    (scratch.root / "projects").mkdir()
    (scratch.root / "projects" / "other.yaml").write_text("name: other\n")
    error = refused(release(scratch, repository, "--rehearse"), 65, "M scripts/deb")
    assert str(scratch.root) in error
    assert "projects" not in error


def test_a_tag_that_is_not_there(checkout: Checkout, repository: Path) -> None:
    done = release(checkout, repository, "--tag", "v1.2.1", "--yes")
    refused(done, 66, "no tag 'v1.2.1'", "v1.2.0", "git tag --annotate v1.2.1")


def test_a_tag_that_names_no_release(checkout: Checkout, repository: Path) -> None:
    annotate(repository, "nightly")
    refused(release(checkout, repository, "--tag", "nightly"), 64, "names no release")


def test_a_lightweight_tag_until_what_is_told_is_typed(
    checkout: Checkout, repository: Path
) -> None:
    git(repository, "tag", "v1.3.0")
    error = refused(release(checkout, repository, "--tag", "v1.3.0"), 65, "lightweight")
    command = error[error.index("git tag") :].splitlines()[0]
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "tag.gpgsign=false"]
    git(repository, *who, *command.split()[1:])
    done = checkout.invoke(
        "--dry", "release", "--project", str(repository), "--tag", "v1.3.0", "--yes"
    )
    assert "tiny 1.3.0, from the tag v1.3.0" in succeed(done)


def test_a_version_lower_than_the_last(checkout: Checkout, repository: Path) -> None:
    commit(repository, "more")
    annotate(repository, "v1.1.9")
    done = release(checkout, repository, "--tag", "v1.1.9", "--yes")
    refused(done, 65, "v1.1.9 is not higher than v1.2.0", "v1.2.1")
    # What is maintained beside a higher release goes on from its own last one.
    git(repository, "checkout", "--quiet", "v1.2.0")
    commit(repository, "mended")
    annotate(repository, "v1.2.1")
    git(repository, "checkout", "--quiet", "-")
    annotate(repository, "v2.0.0")
    said = succeed(
        checkout.invoke("--dry", "release", "--project", str(repository), "--tag", "v1.2.1")
    )
    assert "after v1.2.0" in said


def test_a_tree_in_no_repository(checkout: Checkout, tiny: Path) -> None:
    refused(release(checkout, tiny, "--rehearse"), 78, "not tracked by git")


def test_a_slipway_that_is_released_at_another_commit_than_it_is_at(later: Checkout) -> None:
    before = git(later.root, "rev-parse", "HEAD~1")
    annotate(later.root, "v7.0.0", before)
    done = later.invoke("release", "--tag", "v7.0.0")
    refused(done, 65, "part of what is released", f"git checkout {before[:12]}")
    git(later.root, "tag", "--delete", "v7.0.0")


def test_nobody_to_ask(checkout: Checkout, repository: Path) -> None:
    done = release(checkout, repository, "--tag", "v1.2.0")
    refused(done, 69, "nobody is here", "invoke release --tag v1.2.0 --project", "--yes")
    assert "tiny 1.2.0, from the tag v1.2.0" in done.stdout
    assert nothing_was_made(checkout)


def test_a_person_who_says_no(checkout: Checkout, repository: Path) -> None:
    command = checkout.command("release", "--project", str(repository), "--tag", "v1.2.0")
    code = "import pty, sys; status = pty.spawn(sys.argv[1:]); sys.exit(status >> 8)"
    done = checkout.typed(sys.executable, "-c", code, *command, input="n\n")
    refused(done, 69, "nothing was released")
    assert "go on? [y/N]" in done.stdout
    assert nothing_was_made(checkout)


def test_a_key_that_signs_nothing(checkout: Checkout, repository: Path, tmp_path: Path) -> None:
    nothing = release(checkout, repository, "--rehearse", "--sign", str(tmp_path / "id"))
    refused(nothing, 66, "no ssh key")
    (tmp_path / "id").write_text("not a key\n")
    refused(release(checkout, repository, "--rehearse", "--sign", str(tmp_path / "id")), 66, "id")
    assert nothing_was_made(checkout)


def test_a_disk_that_is_nearly_full(checkout: Checkout, repository: Path) -> None:
    home = checkout.out / "release"
    with tmpfs(home, "20m"):
        refused(release(checkout, repository, "--rehearse"), 74, "nearly full", str(home))
        assert nothing_was_made(checkout)


def test_a_dry_release_shows_its_plan_and_makes_nothing(
    checkout: Checkout, repository: Path
) -> None:
    done = checkout.invoke("--dry", "release", "--project", str(repository), "--rehearse")
    assert "variants  cpu\n" in succeed(done)
    assert not (checkout.out / "release" / "tiny").exists()
    assert nothing_was_made(checkout)


# -- what is made


def test_a_tag_is_released_whole_and_a_second_run_changes_nothing(
    checkout: Checkout, repository: Path, client: Any
) -> None:
    commit(repository, "what comes after the tag is not in it")
    said = succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    made = dist(checkout) / "tiny-1.2.0"
    parts = {"tiny_1.2.0+deb13_amd64.deb", "manifest.json", "SHA256SUMS", "report.html"}
    bills = {"tiny_1.2.0+deb13_amd64.deb.cdx.json", "tiny-1.2.0.cdx.json"}
    assert set(listed(made)) == parts | {f"sbom/{name}" for name in bills}
    check = said[said.rindex("check: ") :].removeprefix("check: ").splitlines()[0]
    succeed(checkout.typed("sh", "-c", check))
    told = manifest.read(made)
    assert (told.version, told.tag, told.is_rehearsal) == ("1.2.0", "v1.2.0", False)
    assert told.commit == git(repository, "rev-parse", "v1.2.0^{commit}")
    (image,) = told.images
    there = client.images.get("tiny:1.2.0")
    assert (image.alias, image.id) == ("tiny:1.2.0", there.id)
    assert [layer.digest for layer in image.layers] == there.attrs["RootFS"]["Layers"]
    assert sum(layer.size for layer in image.layers) == image.size
    assert [(run.what, run.executed) for run in told.tests] == [("built", 1)]
    assert told.tools["gcc"]
    kinds = {file.name: file.kind for file in told.files}
    assert kinds["report.html"] == "report"
    assert kinds["sbom/tiny-1.2.0.cdx.json"] == "sbom"
    before = listed(made)
    said = succeed(release(checkout, repository, "--tag", "v1.2.0"))
    assert "dist/tiny-1.2.0 is unchanged since" in said
    assert "docker run" not in said
    assert listed(made) == before
    spoiled = made / "tiny_1.2.0+deb13_amd64.deb"
    spoiled.write_bytes(b"not that")
    said = succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    assert "made again: tiny_1.2.0+deb13_amd64.deb is another file" in said
    assert "none run now" in said  # receipts still hold for what is not in dist/
    assert manifest.damage(made) == []
    assert listed(made)[spoiled.name] == before[spoiled.name]


def test_a_tag_that_was_moved_is_no_second_release(checkout: Checkout, repository: Path) -> None:
    succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    before = listed(dist(checkout) / "tiny-1.2.0")
    commit(repository, "more")
    annotate(repository, "v1.2.0", "--force")
    done = release(checkout, repository, "--tag", "v1.2.0", "--yes")
    refused(done, 73, "it was moved", "a new tag")
    assert listed(dist(checkout) / "tiny-1.2.0") == before


def test_a_rehearsal_says_so_wherever_a_version_stands(
    checkout: Checkout, repository: Path, client: Any
) -> None:
    succeed(release(checkout, repository, "--rehearse"))
    (made,) = dist(checkout).glob("tiny-*")
    short = git(repository, "rev-parse", "--short=7", "HEAD")
    assert made.name == f"tiny-1.2.0.dev0+g{short}.rehearsal"
    (deb,) = made.glob("*.deb")
    fields = ["dpkg-deb", "--field", str(deb), "Version"]
    version = subprocess.run(fields, check=True, capture_output=True, text=True).stdout.strip()
    assert version == f"1.2.0~~dev0+g{short}.rehearsal+deb13"
    assert subprocess.run(["dpkg", "--compare-versions", version, "lt", "1.2.0"]).returncode == 0
    labels = client.images.get(f"tiny:1.2.0.dev0-g{short}.rehearsal").labels
    assert labels["org.opencontainers.image.version"].endswith(".rehearsal")
    assert manifest.read(made).is_rehearsal


def test_a_test_that_fails_leaves_dist_as_it_was(checkout: Checkout, repository: Path) -> None:
    (repository / "two.cc").write_text("int two() { return 3; }\n")
    commit(repository, "wrong")
    annotate(repository, "v1.3.0")
    refused(release(checkout, repository, "--tag", "v1.3.0", "--yes"), 8, "1 of 1 tests")
    assert not list(dist(checkout).glob("*tiny*"))


def test_a_release_goes_to_the_registry_of_the_settings_and_a_rehearsal_does_not(
    checkout: Checkout, repository: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "registry") as registry:
        env = {"INVOKE_REGISTRY": f"{registry.name}/team"}
        said = succeed(release(checkout, repository, "--rehearse", env=env))
        assert registry.name not in said
        said = succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes", env=env))
        assert f"pushed    to {registry.name}/team" in said
        assert re.search(r"^pushed tiny 1\.2\.0: 1 image, compared by digest$", said, re.MULTILINE)
        said = succeed(release(checkout, repository, "--tag", "v1.2.0", env=env))
        assert f"tiny 1.2.0 is unchanged in {registry.name}/team" in said


# -- in the middle


@contextlib.contextmanager
def paused(client: Any, checkout: Checkout, top: Path) -> Iterator[subprocess.Popen[str]]:
    """A release that has come to its tests, and waits there."""
    flags = ["release", "--project", str(top), "--tag", "v1.2.0", "--yes"]
    with checkout.start(*flags) as process:
        wait_for(lambda: runs(client, checkout, "sleep"), "the release comes to its tests", 120)
        yield process


@pytest.fixture
def gated(area: Path, request: pytest.FixtureRequest) -> Path:
    """A repository whose tests wait."""
    return tracked(tree(area / "gated" / directory_name(request), cmake=GATE))


def open_gate(checkout: Checkout) -> None:
    (checkout.out / "release" / "tiny" / "out" / "tiny" / "cpu" / "build" / "open").touch()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_release_that_was_stopped_goes_on_where_it_was(
    checkout: Checkout, gated: Path, client: Any, signum: signal.Signals
) -> None:
    with paused(client, checkout, gated) as process:
        process.send_signal(signum)
        process.wait(60)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    assert not list(dist(checkout).glob("*tiny*"))
    if signum != signal.SIGKILL:
        assert containers(client, checkout) == []
    open_gate(checkout)
    said = succeed(release(checkout, gated, "--tag", "v1.2.0", "--yes"))
    assert "ninja: no work to do" in said
    assert manifest.damage(dist(checkout) / "tiny-1.2.0") == []
    assert containers(client, checkout) == []


def test_a_second_release_meanwhile_is_told_who_is_at_it(
    checkout: Checkout, gated: Path, client: Any
) -> None:
    with paused(client, checkout, gated) as process:
        done = release(checkout, gated, "--tag", "v1.2.0", "--yes")
        process.terminate()
        process.wait(60)
        refused(done, 75, "is in use by process", "invoke release")


def test_a_disk_that_is_full_at_the_end_has_nothing_of_it(
    checkout: Checkout, gated: Path, client: Any
) -> None:
    with tmpfs(dist(checkout), "120m"):
        with paused(client, checkout, gated) as process:
            with (dist(checkout) / "filler").open("wb", 0) as filler, contextlib.suppress(OSError):
                while filler.write(bytes(1 << 20)):
                    pass
            open_gate(checkout)
            said, _ = process.communicate(timeout=120)
        refused(Done([], process.returncode, said, ""), 74, "the disk is full")
        assert [p.name for p in dist(checkout).iterdir()] == ["filler"]
    said = succeed(release(checkout, gated, "--tag", "v1.2.0", "--yes"))
    assert "none run now" in said
    assert manifest.damage(dist(checkout) / "tiny-1.2.0") == []


def test_what_a_kill_between_two_renames_leaves_is_taken_up(
    checkout: Checkout, repository: Path
) -> None:
    """Put into the state in which SIGKILL would leave it there: moments too short to hit."""
    succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    made = dist(checkout) / "tiny-1.2.0"
    before = listed(made)
    half = made.with_name(".tiny-1.2.0")
    half.mkdir()
    (half / "tiny_1.2.0+deb13_amd64.deb").write_bytes(b"half")
    made.rename(made.with_name(".tiny-1.2.0.before"))
    succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    assert [p.name for p in dist(checkout).glob("*tiny*")] == ["tiny-1.2.0"]
    assert set(listed(made)) == set(before)
    assert manifest.damage(made) == []


# -- signatures


@pytest.fixture
def ssh_key(tmp_path: Path) -> Path:
    key = tmp_path / "id_ed25519"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(argv, check=True)
    return key


def test_an_ssh_key_signs_and_anybody_can_check_it(
    checkout: Checkout, repository: Path, ssh_key: Path
) -> None:
    succeed(release(checkout, repository, "--rehearse"))
    (made,) = dist(checkout).glob("tiny-*")
    before = listed(made)
    # Signing what is there already leaves everything else as it is.
    said = succeed(release(checkout, repository, "--rehearse", "--sign", str(ssh_key)))
    assert {k: v for k, v in listed(made).items() if k != "SHA256SUMS.sig"} == before
    line = said[said.rindex("and in there: ") :].removeprefix("and in there: ").splitlines()[0]
    shutil.copy(f"{ssh_key}.pub", made)
    succeed(checkout.typed("bash", "-c", line, cwd=made))
    done = release(checkout, repository, "--rehearse", "--apt-repo", "--sign", str(ssh_key))
    refused(done, 66, "no secret gpg key that")
    (made / "SHA256SUMS").write_text((made / "SHA256SUMS").read_text() + "\n")
    assert checkout.typed("bash", "-c", line, cwd=made).returncode != 0


def test_a_gpg_key_signs_too_and_an_apt_repository_needs_one(
    checkout: Checkout, repository: Path, tmp_path: Path
) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    env = {"GNUPGHOME": str(home)}
    full = {**os.environ, **env}
    make = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key"]
    subprocess.run([*make, "ann@example.org", "ed25519"], check=True, env=full)
    flags = ["--rehearse", "--sign", "ann@example.org"]
    try:
        said = succeed(release(checkout, repository, *flags, env=env))
        (made,) = (d for d in dist(checkout).glob("tiny-*") if d.is_dir())
        line = said[said.rindex("and in there: ") :].removeprefix("and in there: ").splitlines()[0]
        succeed(checkout.typed("bash", "-c", line, cwd=made, env=env))
        said = succeed(release(checkout, repository, *flags, env=env))
        assert "is unchanged since" in said
        # What is made of a release that is there: the release itself stays as it is.
        before = listed(made)
        succeed(release(checkout, repository, *flags, "--bundle", "--apt-repo", env=env))
        assert listed(made) == before
        with tarfile.open(f"{made}-bundle.tar") as tar:
            assert f"{made.name}-bundle/install" in tar.getnames()
        index = dist(checkout) / "apt-rehearsals" / "dists" / "stable"
        assert "Package: tiny\n" in (index / "main" / "binary-amd64" / "Packages").read_text()
        subprocess.run(["gpg", "--verify", str(index / "InRelease")], check=True, env=full)
        refused(
            release(checkout, repository, "--rehearse", "--sign", "nobody@example.org", env=env),
            66,
            "'nobody@example.org' is no key that signs",
        )
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False, env=full)


# -- the same bytes again


def verify(checkout: Checkout, made: Path, top: Path) -> Done:
    return checkout.invoke("release", "--verify", str(made), "--project", str(top))


def test_a_release_is_verified_and_what_differs_is_named(
    checkout: Checkout, repository: Path
) -> None:
    succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    made = dist(checkout) / "tiny-1.2.0"
    said = succeed(verify(checkout, made, repository))
    assert "1 files, bit by bit the same" in said
    assert "0 of 3 compilations from the cache" in said
    # A release of other bytes, with checksums that fit them: only making it again can tell.
    forged = dist(checkout) / "tiny-forged"
    shutil.copytree(made, forged)
    deb = forged / "tiny_1.2.0+deb13_amd64.deb"
    deb.write_bytes(deb.read_bytes() + b"!")
    refused(verify(checkout, forged, repository), 65, f"{deb.name} is another file")
    other = manifest.File(deb.name, "deb", "cpu", deb.stat().st_size, sha256(deb))
    manifest.write(forged, replace(manifest.read(forged), files=(other,)))
    manifest.write_sums(forged)
    refused(verify(checkout, forged, repository), 65, f"came out otherwise: {deb.name}")


def test_a_release_of_a_commit_that_is_not_here(
    checkout: Checkout, repository: Path, area: Path
) -> None:
    succeed(release(checkout, repository, "--tag", "v1.2.0", "--yes"))
    stranger = tree(area / "released" / "stranger", two="int two() { return 1 + 1; }\n")
    tracked(stranger)
    done = verify(checkout, dist(checkout) / "tiny-1.2.0", stranger)
    refused(done, 66, "has no commit", "git fetch --tags")
    refused(verify(checkout, stranger, stranger), 66, "no release in")


# -- Oar, all of it


def test_a_rehearsal_has_every_variant_tested_packaged_and_told(
    rehearsal: tuple[Checkout, Path],
) -> None:
    _, made = rehearsal
    told = manifest.read(made)
    assert manifest.damage(made) == []
    assert told.variants == ("cpu", "noavx")
    things = {(f.kind, f.variant) for f in told.files if f.variant}
    assert things == {(kind, v) for kind in ("deb", "wheel") for v in told.variants}
    runs = {(run.what, run.variant): run for run in told.tests}
    plain = {(what, v) for what in ("built", "image", "wheel") for v in told.variants}
    assert set(runs) == plain | {("emulated on Nehalem", "noavx")}
    assert all(run.executed >= 100 for run in runs.values())
    levels = {(row.variant, row.found) for row in told.isa if row.instructions}
    assert ("cpu", "x86-64-v3") in levels
    assert {level for v, level in levels if v.endswith("noavx")} == {"x86-64-v2"}
    assert (made / "docs" / "index.html").is_file()
    aliases = [image.alias for image in told.images]
    assert aliases == [f"oar:{told.version.replace('+', '-')}{s}" for s in ("", "-noavx")]
    shared = set.intersection(*({y.digest for y in image.layers} for image in told.images))
    assert len(shared) >= 2  # the base, and Python with what the package depends on


def test_a_second_rehearsal_of_it_all_makes_nothing(rehearsal: tuple[Checkout, Path]) -> None:
    checkout, made = rehearsal
    before = listed(made)
    said = succeed(checkout.invoke("release", "--rehearse"))
    assert "is unchanged since" in said
    assert listed(made) == before
    # With everything warm, what is lost in dist/ is put together again, and no test is run.
    shutil.rmtree(made)
    said = succeed(checkout.invoke("release", "--rehearse"))
    assert said.count("none run now") >= 4
    assert {k: v for k, v in listed(made).items() if k.endswith((".deb", ".whl"))} == {
        k: v for k, v in before.items() if k.endswith((".deb", ".whl"))
    }


def test_two_users_in_two_directories_release_the_same_bytes(
    rehearsal: tuple[Checkout, Path], ordinary: Checkout, area: Path, checkouts: list[Checkout]
) -> None:
    """Packages and wheels of each variant, by uid 0 and uid 1000, who has no compiler cache yet."""
    checkout, made = rehearsal
    root = area / "verifying" / "slipway"
    clone(checkout.root, root)
    give_to(root.parent, 1000)
    other = Checkout(root, ordinary.user, ordinary.python)
    checkouts.append(other)
    said = succeed(other.invoke("release", "--verify", str(made), timeout=1800))
    assert "4 files, bit by bit the same" in said
    assert len(re.findall(r", 0 of \d+ compilations from the cache", said)) >= 1


@pytest.mark.full
def test_a_rehearsal_of_all_that_the_default_project_has(cloned: Callable[[str], Checkout]) -> None:
    checkout = cloned("all-of-it")
    succeed(checkout.invoke("release", "--rehearse", timeout=3600))
    (made,) = (checkout.root / "dist").glob("oar-*.rehearsal")
    told = manifest.read(made)
    assert told.variants == ("cpu", "noavx", "gpu", "gpu-noavx")
    assert len([f for f in told.files if f.kind in ("deb", "wheel")]) == 8
    assert manifest.damage(made) == []
    succeed(checkout.invoke("release", "--verify", str(made), timeout=3600))


def test_diffoscope_tells_in_what_two_files_differ(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("the same\nleft\n")
    two.write_text("the same\nright\n")
    said = how(one, two)
    if shutil.which("diffoscope"):
        assert "-left" in said
        assert "+right" in said
    else:
        assert said == f"{two} is what was made now"
