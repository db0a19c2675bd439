"""What may be released, under which version, and what is said of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from packaging.version import Version as Pep440

from slipway import audit, isa, layers, manifest, plan, release, signing, tags, verification
from slipway.errors import BAD_DATA, NO_INPUT, USAGE, SlipwayError
from slipway.manifest import File, Layer, Manifest, ReleasedImage
from slipway.plan import Origin, Plan, Wanted
from slipway.tags import Tag
from slipway.variants import TABLE
from slipway.versions import rehearsed, renamed
from tests.unit.fakes import VERSION

COMMIT, OTHER = "1a2b3c4d" * 5, "5e6f7a8b" * 5


def tag(name: str, commit: str = COMMIT, *, is_annotated: bool = True) -> Tag:
    return Tag(name, Pep440(name), commit, is_annotated)


# -- tags


def test_tags_that_name_no_release_are_passed_over_and_annotated_ones_are_told_apart() -> None:
    lines = [
        f"v1.2.0 tag {OTHER} commit {COMMIT}",
        f"v1.3.0 commit {COMMIT}",
        f"nightly tag {OTHER} commit {COMMIT}",
        f"v1.4.0 tag {OTHER} tree {OTHER}",
    ]
    assert tags.parse_tags(lines) == [
        tag("v1.2.0"),
        tag("v1.3.0", is_annotated=False),
        tag("v1.4.0", commit=""),
    ]


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        ("nightly", USAGE, "names no release"),
        ("v1.2.1", NO_INPUT, "did you mean 'v1.2.0'"),
        ("v1.3.0", BAD_DATA, "git tag --annotate v1.3.0 --message v1.3.0 --force 1a2b3c4d1a2b"),
        ("v1.4.0", NO_INPUT, "is not on a commit"),
    ],
)
def test_only_an_annotated_tag_of_a_release_will_do(wanted: str, code: int, words: str) -> None:
    there = [tag("v1.2.0"), tag("v1.3.0", is_annotated=False), tag("v1.4.0", commit="")]
    assert tags.chosen("v1.2.0", there) == there[0]
    with pytest.raises(SlipwayError) as caught:
        tags.chosen(wanted, there)
    assert caught.value.code == code
    assert words in str(caught.value.message)
    assert caught.value.fix


def test_the_release_before_is_the_highest_that_the_commit_contains() -> None:
    contained = [tag("v1.9.0", OTHER), tag("v1.10.0", OTHER), tag("v1.11.0")]
    assert tags.before(tag("v1.11.0"), contained) == "v1.10.0"
    assert tags.before(tag("v0.1.0"), [tag("v0.1.0")]) == ""


@pytest.mark.parametrize(
    ("name", "last"), [("v1.2.0", "v1.3.0"), ("v1.3.0rc1", "v1.3.0"), ("v1.3.0", "1.3")]
)
def test_a_version_that_is_not_higher_is_refused_with_one_that_is(name: str, last: str) -> None:
    with pytest.raises(SlipwayError, match=f"{name} is not higher than {last}") as caught:
        tags.before(tag(name), [tag(name), tag(last, OTHER)])
    assert caught.value.code == BAD_DATA
    assert any("1.3.1" in fix or "v1.4 " in fix for fix in caught.value.fix)


def test_two_spellings_of_one_release_at_one_commit_are_one() -> None:
    assert tags.before(tag("v1.3.0"), [tag("v1.3.0"), tag("1.3")]) == "1.3"


# -- versions


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.1.0.dev7+g1a2b3c4", "0.1.0.dev7+g1a2b3c4.rehearsal"),
        ("1.2.0", "1.2.0.dev0+g1a2b3c4.rehearsal"),
        ("1.2.0rc1", "1.2.0rc1.dev0+g1a2b3c4.rehearsal"),
    ],
)
def test_a_rehearsal_says_so_and_sorts_before_what_it_rehearses(version: str, name: str) -> None:
    found = rehearsed(replace(VERSION, pep440=version))
    assert found.pep440 == name
    assert Pep440(found.pep440) < Pep440(version.partition(".dev")[0])
    assert found.debian.endswith(".rehearsal")
    assert "~~dev" in found.debian
    assert found.tag == name.replace("+", "-")


def test_another_version_has_three_spellings_and_the_same_moment() -> None:
    found = renamed(VERSION, Pep440("2.0rc1"))
    assert (found.pep440, found.debian, found.tag) == ("2.0rc1", "2.0~rc1", "2.0rc1")
    assert (found.commit, found.epoch) == (VERSION.commit, VERSION.epoch)


# -- the tree and the plan


def test_a_dirty_tree_is_refused_by_its_first_files() -> None:
    assert plan.dirty(Path("/src"), []) is None
    error = plan.dirty(Path("/src"), [f"?? file{number}" for number in range(7)])
    assert error
    assert error.code == BAD_DATA
    assert "file4\n" in f"{error.cause}\n"
    assert "file5" not in error.cause
    assert "and 2 more" in error.cause


def make_plan(root: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "origin": Origin(root, COMMIT, root / "project.yaml", root),
        "project": "oar",
        "version": "1.2.0",
        "tag": "v1.2.0",
        "before": "v1.1.0",
        "variants": {name: TABLE[name] for name in ("cpu", "noavx")},
        "has_book": False,
        "has_docs": True,
        "target": root / "dist" / "oar-1.2.0",
        "key": None,
        "registries": (),
        "slipway": "1.0",
    }
    return Plan(**{**values, **changes})


def test_the_plan_tells_what_is_made_from_what_and_where_it_goes(tmp_path: Path) -> None:
    text = "\n".join(plan.told(make_plan(tmp_path), "", "dist/oar-1.2.0"))
    for words in ("v1.2.0", COMMIT, "after v1.1.0", "cpu, noavx", "documentation", "--sign KEY"):
        assert words in text
    assert "noavx on an emulated Nehalem" in text
    assert "cpu on an" not in text
    assert "the book" not in text
    assert "pushed" not in text
    pushed = make_plan(tmp_path, registries=("r.example.org/team", "mirror.example.org"))
    assert "pushed    to r.example.org/team, mirror.example.org" in plan.told(pushed, "", "d")
    rehearsal = make_plan(tmp_path, tag="", has_book=True)
    text = "\n".join(plan.told(rehearsal, "replaced", "dist/oar-1.2.0"))
    assert "rehearsal" in text
    assert "the book" in text
    assert "dist/oar-1.2.0: replaced" in text


def test_the_command_that_was_typed_is_told_whole() -> None:
    wanted = Wanted("v1.2.0", yes=True, sign="a key", project="examples/oar", source="")
    said = "invoke release --tag v1.2.0 --sign 'a key' --project examples/oar"
    assert plan.command(wanted) == said
    assert plan.command(Wanted(is_rehearsal=True)) == "invoke release --rehearse"


# -- what lies in dist/


def make_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "project": "oar",
        "version": "1.2.0",
        "tag": "v1.2.0",
        "commit": COMMIT,
        "epoch": VERSION.epoch,
        "is_rehearsal": False,
        "made_at": 0.0,
        "variants": ("cpu",),
        "files": (),
        "images": (),
        "tests": (),
        "isa": (),
        "steps": (),
        "tools": {"slipway": "1.0"},
        "base": "debian",
    }
    return Manifest(**{**values, **changes})


def put(directory: Path, **changes: Any) -> Path:
    directory.mkdir(parents=True)
    (directory / "oar.deb").write_text("a package")
    (directory / "docs").mkdir()
    (directory / "docs" / "index.html").write_text("a page")
    manifest.write(directory, make_manifest(**changes))
    manifest.write_sums(directory)
    return directory


def test_checksums_are_of_every_file_but_themselves_and_their_signature(tmp_path: Path) -> None:
    directory = put(tmp_path / "oar-1.2.0")
    (directory / "SHA256SUMS.sig").write_text("a signature")
    again = manifest.write_sums(directory).read_text()
    assert [line.partition("  ")[2] for line in again.splitlines()] == [
        "manifest.json",
        "oar.deb",
        "docs/index.html",
    ]
    assert manifest.damage(directory) == []


def test_each_damage_is_named(tmp_path: Path) -> None:
    directory = put(tmp_path / "oar-1.2.0")
    (directory / "oar.deb").write_text("another")
    (directory / "docs" / "index.html").unlink()
    (directory / "beyond.whl").write_text("what another task has put there")
    assert sorted(manifest.damage(directory)) == [
        "docs/index.html is missing",
        "oar.deb is another file",
    ]
    (directory / "SHA256SUMS").unlink()
    assert manifest.damage(directory) == ["SHA256SUMS is missing"]


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.engine.inspect_images", lambda *_: {})


@pytest.mark.usefixtures("no_images")
def test_a_release_that_is_whole_is_found(tmp_path: Path) -> None:
    wanted = make_plan(tmp_path)
    assert plan.finished(wanted) == (None, "")
    put(wanted.target)
    assert plan.finished(wanted) == (make_manifest(), "")


@pytest.mark.usefixtures("no_images")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda target: (target / "oar.deb").unlink(), "made again: oar.deb is missing"),
        (lambda target: (target / "manifest.json").unlink(), "other tasks"),
    ],
)
def test_what_is_there_instead_is_told(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    wanted = make_plan(tmp_path)
    spoil(put(wanted.target))
    there, state = plan.finished(wanted)
    assert there is None
    assert words in state


@pytest.mark.usefixtures("no_images")
def test_an_image_that_is_gone_has_the_release_made_again(tmp_path: Path) -> None:
    wanted = make_plan(tmp_path)
    image = ReleasedImage("oar:1.2.0", "prod", "cpu", "sha256:1", 1, ())
    put(wanted.target, images=(image,))
    assert plan.finished(wanted) == (None, "made again: the image oar:1.2.0 is not here")


@pytest.mark.usefixtures("no_images")
def test_a_tag_that_was_moved_is_no_release_of_the_same_version(tmp_path: Path) -> None:
    wanted = make_plan(tmp_path)
    put(wanted.target, commit=OTHER)
    with pytest.raises(SlipwayError, match="is a release of commit 5e6f7a8b5e6f"):
        plan.finished(wanted)


@pytest.mark.usefixtures("no_images")
def test_another_slipway_makes_a_rehearsal_again_and_no_release(tmp_path: Path) -> None:
    wanted = make_plan(tmp_path, slipway="2.0")
    put(wanted.target)
    assert plan.finished(wanted)[0]
    there, state = plan.finished(replace(wanted, tag=""))
    assert there is None
    assert "Slipway 1.0" in state


def test_the_book_of_a_release_is_kept_and_of_a_rehearsal_is_not(tmp_path: Path) -> None:
    def image(alias: str) -> tuple[ReleasedImage, ...]:
        return (ReleasedImage(alias, "book", "cpu", "sha256:1", 1, ()),)

    put(tmp_path / "dist" / "oar-1.2.0", images=image("oar-book:1.2.0"))
    put(tmp_path / "dist" / "oar-1.3", images=image("oar-book:1.3"), is_rehearsal=True)
    assert manifest.kept_images(tmp_path / "dist") == {"oar-book:1.2.0"}
    assert manifest.kept_images(tmp_path / "nowhere") == set()


# -- publishing


def test_what_is_published_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    staged, target = put(tmp_path / "staged"), tmp_path / "dist" / "oar-1.2.0"
    release.publish(staged, target)
    (target / "of-another-task").write_text("")
    release.publish(staged, target)
    assert sorted(p.name for p in target.iterdir()) == sorted(p.name for p in staged.iterdir())
    assert manifest.damage(target) == []
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_a_disk_that_fills_up_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged, target = put(tmp_path / "staged"), put(tmp_path / "dist" / "oar-1.2.0")
    (target / "mine").write_text("")

    def full(_source: Path, copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(copy))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        release.publish(staged, target)
    assert (target / "mine").is_file()
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_what_a_killed_run_has_moved_aside_comes_back(tmp_path: Path) -> None:
    staged, target = put(tmp_path / "staged"), put(tmp_path / "dist" / "oar-1.2.0")
    target.rename(target.with_name(".oar-1.2.0.before"))
    target.with_name(".oar-1.2.0").mkdir()
    release.publish(staged, target)
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert manifest.damage(target) == []


# -- what is in it


def test_the_isa_table_has_the_highest_level_of_what_is_ours() -> None:
    def judged(level: str, extensions: dict[str, int], owner: str = "") -> audit.Judged:
        uses = {name: isa.Use(count, 1, ()) for name, count in extensions.items()}
        verdict = isa.Verdict(level, uses, {}, 1, 0, 0, "symbols")
        return audit.Judged(audit.File("x.so", verdict), owner)

    found = [
        judged("x86-64-v3", {"AVX2": 7, "SSE2": 90}),
        judged("x86-64", {"SSE2": 10}),
        judged("x86-64-v4", {"AVX512F": 50}, owner="libc6"),
    ]
    row = release.found_by_audit("oar.deb", "cpu", "x86-64-v3", found)
    assert (row.found, row.files, row.instructions) == ("x86-64-v3", 2, 7)


HISTORY = [
    {"CreatedBy": "WORKDIR /work", "Size": "0"},
    {"CreatedBy": "COPY about /usr/local/bin/about # buildkit", "Size": "88"},
    {"CreatedBy": "LABEL a=b", "Size": "0"},
    {"CreatedBy": '/bin/sh -c #(nop)  CMD ["bash"]', "Size": "0"},
    {"CreatedBy": "/bin/sh -c #(nop) ADD file:1 in / ", "Size": "78000910"},
]


def test_each_layer_is_told_by_the_instruction_that_made_it() -> None:
    assert layers.layers_of(["sha256:1", "sha256:2", "sha256:3"], HISTORY) == [
        Layer("sha256:1", 78000910, "ADD file:1 in /"),
        Layer("sha256:2", 88, "COPY about /usr/local/bin/about # buildkit"),
        Layer("sha256:3", 0, "WORKDIR /work"),
    ]


def test_an_instruction_that_changed_nothing_may_have_made_no_layer() -> None:
    found = layers.layers_of(["sha256:1", "sha256:2"], HISTORY)
    assert [layer.size for layer in found] == [78000910, 88]


def test_layers_without_a_history_are_counted_all_the_same() -> None:
    assert layers.layers_of(["sha256:1", "sha256:2", "sha256:3", "sha256:4"], HISTORY)[3] == Layer(
        "sha256:4", 0, ""
    )


# -- signatures


def test_a_file_is_an_ssh_key_and_anything_else_gpg_s(tmp_path: Path) -> None:
    file = tmp_path / "id_ed25519"
    file.write_text("a key")
    key = signing.key_of(str(file))
    assert key.is_ssh
    assert key.public == tmp_path / "id_ed25519.pub"
    assert signing.key_of(f"{file}") == signing.key_of(str(tmp_path / "." / "id_ed25519"))
    assert not signing.key_of("ann@example.org").is_ssh
    with pytest.raises(SlipwayError, match="no ssh key"):
        signing.key_of(str(tmp_path / "nothing"))


def test_who_checks_is_given_the_whole_command() -> None:
    ssh = signing.Key("/home/ann/.ssh/id_ed25519", is_ssh=True)
    assert signing.check_command("SHA256SUMS", ssh) == (
        "ssh-keygen -Y verify -f <(echo release $(cat id_ed25519.pub)) -I release"
        " -n file -s SHA256SUMS.sig <SHA256SUMS"
    )
    gpg = signing.Key("ann@example.org", is_ssh=False)
    assert signing.check_command("SHA256SUMS", gpg) == "gpg --verify SHA256SUMS.asc SHA256SUMS"
    assert "ann@example.org" in signing.sign_arguments(gpg)


def test_the_fingerprints_of_a_key_are_found_in_what_gpg_lists() -> None:
    listing = "sec:u:255:22:AB:1::::::scESC:\nfpr:::::::::ABCD:\nuid:u::::1::\nfpr:::::::::EF01:\n"
    assert signing.fingerprints(listing) == {"ABCD", "EF01"}


# -- verification


def test_what_came_out_otherwise_or_not_at_all_is_named() -> None:
    files = [
        File("a.deb", "deb", "cpu", 1, "1"),
        File("b.whl", "wheel", "cpu", 1, "2"),
        File("c.deb", "deb", "noavx", 1, "3"),
        File("docs/index.html", "docs", "", 1, "4"),
    ]
    assert verification.others(files, {"a.deb": "1", "b.whl": "x"}) == ["b.whl", "c.deb"]
    assert verification.others(files, {"a.deb": "1", "b.whl": "2", "c.deb": "3"}) == []


def test_tools_of_another_version_are_named_as_what_may_be_why() -> None:
    then = {"gcc": "14.2", "cmake": "3.31", "docker": "20", "mold": "2"}
    now = {"gcc": "15.1", "cmake": "3.31", "docker": "28"}
    assert verification.changed_tools(then, now) == [
        "gcc was 14.2, and is 15.1 here",
        "mold was 2, and is not there here",
    ]
