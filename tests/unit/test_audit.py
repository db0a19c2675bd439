"""What is audited, what it is held to, and what is said of it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import audit, isa, receipts
from slipway.audit import File, Reader, failure, judge, lost_vectors, matches
from slipway.errors import BAD_CONFIG, BAD_DATA, NO_INPUT, SlipwayError
from slipway.settings import ROOT
from slipway.variants import TABLE, Variant
from tests.unit import elves
from tests.unit.elves import ADDPS_XMM, POPCNT, RET, VADDPS_YMM, elf
from tests.unit.fakes import make_site, make_tree

V2, V3 = TABLE["noavx"].isa, TABLE["cpu"].isa
AVX = elf(VADDPS_YMM + RET, [("axpy", 0, 5)])
SSE = elf(ADDPS_XMM + RET, [("axpy", 0, 4)])
NONE = elf(RET, [("one", 0, 1)])
AARCH64 = elf(RET, machine=183)


@pytest.fixture
def look(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "kept")


def file(data: bytes, path: str = "lib/liboar.so") -> File:
    return File(path, isa.examine(data))


# -- held to a row


def test_what_we_compiled_fails_beyond_its_row() -> None:
    assert judge(file(AVX), V2, {}).beyond == ("AVX",)
    assert judge(file(AVX), V2, {}).fails
    assert not judge(file(AVX), V3, {}).fails
    assert not judge(file(SSE), V2, {}).fails


def test_extensions_of_no_level_fail_in_every_row() -> None:
    aes = file(elf(bytes.fromhex("660f38dcc1c3")))
    assert judge(aes, V2, {}).fails
    assert judge(aes, V3, {}).fails


def test_a_file_is_allowed_by_its_pattern_and_the_reason_is_told() -> None:
    judged = judge(file(AVX), V2, {"**/liboar.so": "asks CPUID"})
    assert not judged.fails
    assert judged.said == "allowed: asks CPUID"
    assert judge(file(AVX), V2, {"liboar.so": "is not at the top"}).fails


def test_functions_are_allowed_by_name_and_all_of_them_have_to_be() -> None:
    code = VADDPS_YMM + RET + VADDPS_YMM + RET
    two = file(elf(code, [("axpy_avx", 0, 5), ("axpy_plain", 5, 5)]))
    one = {"**/liboar.so:*_avx": "chosen by CPUID"}
    assert judge(two, V2, one).beyond == ("AVX",)
    assert judge(two, V2, one).fails
    both = {**one, "**/liboar.so:axpy_plain": "tests only"}
    assert judge(two, V2, both).reason == "chosen by CPUID; tests only"
    assert not judge(two, V2, both).fails


def test_functions_that_are_not_listed_are_not_allowed_by_name() -> None:
    number = isa.MAX_PLACES + 1
    many = file(elf(VADDPS_YMM * number, [(f"f{i}_avx", 4 * i, 4) for i in range(number)]))
    assert judge(many, V2, {"**/liboar.so:*_avx": "chosen"}).fails
    assert not judge(many, V2, {"**/liboar.so": "chosen"}).fails


def test_what_others_compiled_is_named_with_the_reason_and_does_not_fail() -> None:
    known = judge(file(AVX), V2, {}, "libopenblas0-pthread")
    assert known.said == "allowed: OpenBLAS's kernels are chosen when it is loaded"
    unknown = judge(file(AVX), V2, {}, "libsomething1")
    assert unknown.reason == audit.NOT_NAMED
    assert not known.fails
    assert not unknown.fails
    assert judge(file(SSE), V2, {}, "libopenblas0-pthread").said == "ok"


def test_the_allow_list_has_a_reason_for_each_package() -> None:
    assert all(len(reason.split()) > 3 for reason in audit.OTHERS.values())


def test_what_cannot_be_read_fails_unless_it_is_allowed() -> None:
    strange = File("data/probe.o", None, "is for aarch64, not for x86-64")
    assert judge(strange, V2, {}).fails
    assert not judge(strange, V2, {"data/**": "a test's input"}).fails
    assert not judge(strange, V2, {}, "some-package").fails


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**/lib*.so", "usr/lib/liba.so", True),
        ("**/lib*.so", "liba.so", True),
        ("usr/*.so", "usr/lib/a.so", False),
        ("usr/**", "usr/lib/a.so", True),
        ("a.so", "axso", False),
        ("a?.so", "ab.so", True),
    ],
)
def test_patterns_are_those_of_package_files(pattern: str, path: str, fits: bool) -> None:
    loader = importlib.machinery.SourceFileLoader("arrange", str(ROOT / "scripts" / "arrange"))
    spec = importlib.util.spec_from_loader("arrange", loader)
    assert spec
    arrange: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(arrange)
    assert matches(pattern, path) == fits
    assert bool(arrange.pattern(pattern).fullmatch(path)) == fits


# -- the loss of speed


def judged(*contents: bytes, reason: str = "") -> list[audit.Judged]:
    return [audit.Judged(file(data), reason=reason) for data in contents]


def test_vector_code_without_any_of_the_level_was_compiled_without_its_flags() -> None:
    assert lost_vectors(judged(SSE, NONE), V3)
    assert not lost_vectors(judged(SSE, AVX), V3)
    assert not lost_vectors(judged(SSE), V2)


def test_a_library_of_whole_numbers_has_nothing_to_lose() -> None:
    assert not lost_vectors(judged(NONE), V3)
    assert not lost_vectors([], V3)


def test_neither_what_is_allowed_nor_what_others_compiled_counts_for_it() -> None:
    others = [audit.Judged(file(AVX), owner="libopenblas0")]
    assert lost_vectors([*judged(SSE), *others, *judged(AVX, reason="chosen")], V3)


def test_a_file_that_is_allowed_as_a_whole_may_do_without_vector_code() -> None:
    allowed = judge(file(SSE), V3, {"**": "all of it is linked from an archive of others"})
    assert not lost_vectors([allowed], V3)
    assert allowed.said == "ok"
    assert lost_vectors([judge(file(SSE), V3, {"**:axpy": "names a function"})], V3)


# -- what is said


def said(error: SlipwayError | None) -> str:
    assert error
    assert error.code == BAD_DATA
    assert error.fix
    return error.message or ""


def test_the_error_names_file_extension_function_and_instruction() -> None:
    text = said(failure("the build of oar 1.2.0 noavx", [judge(file(AVX), V2, {})], V2, "/src/oar"))
    assert "the build of oar 1.2.0 noavx goes beyond x86-64-v2 in 1 of 1 files" in text
    assert "lib/liboar.so: AVX" in text
    assert "AVX in axpy+0x0: vaddps ymm0,ymm0,ymm1" in text
    assert "try: grep -rnE 'march=|mtune=native|-mavx|-mfma' /src/oar" in text
    assert "'**/liboar.so': REASON" in text


def test_the_error_of_a_stripped_file_says_that_it_is_stripped() -> None:
    text = said(failure("x", [judge(file(elf(VADDPS_YMM)), V2, {})], V2, "/src"))
    assert "AVX in .text+0x0: vaddps" in text
    assert "it is stripped, without a symbol" in text


def test_the_error_of_many_files_stays_short() -> None:
    many = [judge(file(AVX, f"lib/{i}.so"), V2, {}) for i in range(30)]
    text = said(failure("x", many, V2, "/src"))
    assert "and 22 more files" in text
    assert len(text.splitlines()) < 40


def test_the_error_of_a_loss_of_speed_says_what_drops_flags() -> None:
    text = said(failure("x", judged(SSE), V3, "/src"))
    assert "none of x86-64-v3's" in text
    assert "CMAKE_CXX_FLAGS" in text


def test_nothing_is_wrong_with_what_keeps_to_its_row() -> None:
    assert failure("x", [judge(file(AVX), V3, {}), judge(file(SSE), V3, {})], V3, "/src") is None


def test_a_row_that_is_no_level_of_the_psabi_cannot_be_audited(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, variants={"cpu": Variant(isa="x86-64-v33")})
    with pytest.raises(SlipwayError, match="'x86-64-v33' is no level") as caught:
        audit.level_of(tree, "cpu")
    assert "did you mean 'x86-64-v3'" in caught.value.cause
    assert caught.value.code == BAD_CONFIG


def test_the_table_has_a_row_for_each_file_of_ours_and_each_package_of_others() -> None:
    rows = audit.rows_of(
        [
            judge(file(AVX), V2, {}),
            judge(file(SSE, "src/one.o"), V2, {}),
            judge(file(AVX, "src/two.o"), V2, {}),
            judge(file(SSE, "usr/lib/libc.so.6"), V2, {}, "libc6"),
            judge(file(AVX, "usr/lib/libm.so.6"), V2, {}, "libc6"),
        ]
    )
    assert [row[0] for row in rows] == ["FILE", "lib/liboar.so", "src/two.o", "libc6 (2 files)"]
    assert rows[1] == ["lib/liboar.so", "x86-64-v3", "AVX", "beyond it: AVX"]
    assert rows[3][3].startswith("allowed: ld.so")


# -- what is read


def paths(files: object) -> list[str]:
    return [f.path for f in files]  # type: ignore[attr-defined]


def test_every_elf_file_of_a_directory_is_read_and_links_are_not_followed(
    look: Reader, tmp_path: Path
) -> None:
    top = tmp_path / "build"
    (top / "lib").mkdir(parents=True)
    (top / "lib" / "liboar.so.1").write_bytes(AVX)
    (top / "lib" / "liboar.so").symlink_to("liboar.so.1")
    (top / "liboar.a").write_bytes(elves.archive({"a.o": AVX, "notes": b"text", "b.o": SSE}))
    (top / "script").write_text("#!/bin/sh\n")
    (top / "empty").touch()
    elves.wheel(top / "oar.whl", {"oar/_oar.so": SSE, "oar/__init__.py": b""})
    assert paths(audit.of_path(look, top)) == [
        "liboar.a(a.o)",
        "liboar.a(b.o)",
        "oar.whl/oar/_oar.so",
        "lib/liboar.so.1",
    ]


def test_what_the_source_has_too_was_not_compiled(look: Reader, tmp_path: Path) -> None:
    for place in ("source", "copy"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "prebuilt.o").write_bytes(AARCH64)
    (tmp_path / "copy" / "made.o").write_bytes(SSE)
    found = audit.of_directory(look, tmp_path / "copy", tmp_path / "source")
    assert paths(found) == ["made.o"]


@pytest.mark.parametrize("compression", ["xz", "gz", ""])
def test_a_package_is_read_whatever_it_is_packed_with(
    look: Reader, tmp_path: Path, compression: str
) -> None:
    deb = tmp_path / "oar.deb"
    deb.write_bytes(elves.deb({"usr/lib/liboar.so": AVX, "usr/bin/x": b"#!"}, compression))
    (found,) = audit.of_path(look, deb)
    assert found.path == "usr/lib/liboar.so"
    assert found.verdict
    assert found.verdict.level == V3


def test_a_wheel_is_read(look: Reader, tmp_path: Path) -> None:
    wheel = elves.wheel(tmp_path / "oar-1-py3.whl", {"oar/_oar.so": AVX, "oar/x.py": b""})
    assert paths(audit.of_path(look, wheel)) == ["oar/_oar.so"]


def test_one_file_is_read_by_itself(look: Reader, tmp_path: Path) -> None:
    (tmp_path / "liboar.so").write_bytes(SSE)
    assert paths(audit.of_path(look, tmp_path / "liboar.so")) == ["liboar.so"]


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("nothing.so", None, NO_INPUT, "no file or directory"),
        ("text.so", b"INPUT(-loar)", BAD_DATA, "is no ELF file, archive, .deb or wheel"),
        ("cut.deb", elves.deb({"a.so": SSE})[:-50], BAD_DATA, "cut.deb is damaged"),
        ("odd.deb", elves.archive({"x": b"y"}), BAD_DATA, "has no data.tar"),
        ("cut.whl", b"PK\3\4", BAD_DATA, "cut.whl is damaged"),
    ],
)
def test_what_is_nothing_to_audit_is_told(
    look: Reader, tmp_path: Path, name: str, content: bytes | None, code: int, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SlipwayError) as caught:
        audit.of_path(look, tmp_path / name)
    assert caught.value.code == code
    assert words in (caught.value.message or "")
    assert caught.value.fix


def test_a_package_in_zstd_is_told_of_where_python_cannot_read_it(
    look: Reader, tmp_path: Path
) -> None:
    if hasattr(tarfile.TarFile, "zstopen"):
        return  # Python 3.14 can
    (tmp_path / "x.deb").write_bytes(elves.archive({"data.tar.zst": b"\x28\xb5\x2f\xfd"}))
    with pytest.raises(SlipwayError, match="packed with zstd") as caught:
        audit.of_path(look, tmp_path / "x.deb")
    assert caught.value.fix[0].startswith("dpkg-deb --extract")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (AVX[:-30], "is cut off: the table of its sections ends at byte"),
        (AVX[:40], "is cut off: of its first 64 bytes it has 40"),
        (AARCH64, "is for aarch64, not for x86-64"),
        (elves.archive({"a.o": AVX})[:-9], "is cut off: a member ends at byte"),
    ],
)
def test_what_cannot_be_told_of_a_build_is_an_error_that_says_why(
    look: Reader, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "liboar.so").write_bytes(content)
    found = [judge(f, V3, {}) for f in audit.of_path(look, tmp_path / "build")]
    text = said(failure("the build of oar", found, V3, "/src"))
    assert f"the build of oar: liboar.so {words}" in text


# -- verdicts are kept


def test_a_verdict_is_found_once(look: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    first = look.verdict(AVX)
    monkeypatch.setattr(isa, "examine", lambda *_: pytest.fail("it was kept"))
    assert look.verdict(AVX) == first


def test_a_dry_run_keeps_nothing(tmp_path: Path) -> None:
    workshop = replace(make_site(tmp_path).workshop, dry=True)
    assert audit.reader(workshop).verdict(AVX).level == V3
    assert not (workshop.cache / "isa").exists()


def test_a_kept_verdict_that_was_cut_off_is_found_again(look: Reader) -> None:
    first = look.verdict(AVX)
    (kept,) = look.kept.rglob("*.json")
    kept.write_bytes(kept.read_bytes()[:50])
    assert look.verdict(AVX) == first


def test_verdicts_are_kept_by_the_code_that_found_them(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    assert audit.reader(site.workshop).kept.parent == site.workshop.cache / "isa"


def test_split_off_symbols_are_found_by_build_id(tmp_path: Path) -> None:
    code = RET * 4 + VADDPS_YMM + RET
    identity = bytes(range(20))
    debug = tmp_path / "debug" / identity.hex()[:2]
    debug.mkdir(parents=True)
    apart = elf(code, [("hidden", 4, 5)], code_is_here=False)
    (debug / f"{identity.hex()[2:]}.debug").write_bytes(apart)
    stripped = elf(code, dynamic=True, build_id=identity)
    known = Reader(tmp_path / "kept", tmp_path / "debug").verdict(stripped)
    assert known.extensions["AVX"].places[0].function == "hidden"
    unknown = Reader(tmp_path / "kept").verdict(stripped)
    assert unknown.extensions["AVX"].places[0].function == ".text"


# -- images


def image(files: Mapping[str, bytes]) -> io.BytesIO:
    return io.BytesIO(elves.tar(files))


LISTS = "var/lib/dpkg/info/"
OAR_LIST = b"/.\n/usr/lib/liboar.so.0\n"


def test_dpkg_s_lists_say_whose_a_file_is(look: Reader) -> None:
    held = audit.of_image(
        look,
        image(
            {
                "usr/lib/liboar.so.0": AVX,
                "usr/lib/x86_64-linux-gnu/libc.so.6": AVX,
                "usr/lib/libx.a": elves.archive({"x.o": SSE}),
                "opt/strange": SSE,
                f"{LISTS}oar.list": OAR_LIST,
                # As Debian 12 has it: the list says /lib, which is a link to /usr/lib.
                f"{LISTS}libc6:amd64.list": b"/lib/x86_64-linux-gnu/libc.so.6\n",
                f"{LISTS}libx-dev.list": b"/usr/lib/libx.a\n",
            }
        ),
    )
    assert held.owners == {
        "usr/lib/liboar.so.0": "oar",
        "usr/lib/x86_64-linux-gnu/libc.so.6": "libc6",
        "usr/lib/libx.a(x.o)": "libx-dev",
        "opt/strange": "",
    }
    assert held.packages == {"oar", "libc6", "libx-dev"}


def test_what_is_of_no_package_is_held_to_the_row_as_ours_is(tmp_path: Path, look: Reader) -> None:
    site = make_site(tmp_path, variant="noavx")
    owners = {"a.so": "oar-noavx", "b.so": "oar-noavx-dev", "c.so": "", "d.so": "libc6"}
    judged = audit.judge_all(site, [file(AVX, name) for name in owners], owners)
    assert [j.fails for j in judged] == [True, True, True, False]


def test_an_image_without_the_library_is_refused(look: Reader) -> None:
    held = audit.of_image(look, image({f"{LISTS}libc6.list": b"/.\n"}))
    with pytest.raises(SlipwayError, match="does not hold the package oar") as caught:
        audit.check_installed(held, "oar", "oar:1.2.0")
    assert "lists 1 packages, and not that one" in (caught.value.message or "")
    assert caught.value.code == BAD_DATA


def test_an_image_whose_library_was_removed_is_refused(look: Reader) -> None:
    held = audit.of_image(look, image({f"{LISTS}oar.list": OAR_LIST}))
    with pytest.raises(SlipwayError, match=r"lacks /usr/lib/liboar\.so\.0"):
        audit.check_installed(held, "oar", "oar:1.2.0")


def test_an_image_that_is_cut_off_is_told(look: Reader) -> None:
    whole = image({"usr/lib/liboar.so.0": AVX * 4}).getvalue()
    with pytest.raises(SlipwayError, match="the image is damaged"):
        audit.of_image(look, io.BytesIO(whole[:900]))


# -- what is made of it


def test_a_package_that_passes_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, deb = make_site(tmp_path), tmp_path / "oar_1.2.0_amd64.deb"
    deb.write_bytes(elves.deb({"usr/lib/liboar.so": AVX}))
    audit.check_deb(site, deb)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("audited oar_1.2.0_amd64.deb: 1 ELF files of ours, x86-64-v3, ")


def test_a_package_of_the_other_variant_does_not_pass(tmp_path: Path) -> None:
    site, deb = make_site(tmp_path, variant="noavx"), tmp_path / "oar-noavx_1.2.0_amd64.deb"
    deb.write_bytes(elves.deb({"usr/lib/liboar.so": AVX}))
    with pytest.raises(SlipwayError, match="goes beyond x86-64-v2"):
        audit.check_deb(site, deb)


def test_project_yaml_may_allow_it(tmp_path: Path) -> None:
    rows = {"allow": {"usr/lib/liboar.so:axpy": "asks CPUID"}}
    site, deb = make_site(tmp_path, variant="noavx", audit=rows), tmp_path / "oar.deb"
    deb.write_bytes(elves.deb({"usr/lib/liboar.so": AVX}))
    assert audit.check_deb(site, deb)[0].reason == "asks CPUID"


def test_nobody_here_compiled_a_prebuilt_wheel(tmp_path: Path) -> None:
    site = make_site(tmp_path, variant="noavx")
    prebuilt = replace(site, tree=replace(site.tree, wheel=tmp_path / "x-1-py3.whl"))
    (judged,) = audit.judge_all(prebuilt, [file(AVX)], {})
    assert judged.reason == "x-1-py3.whl, as its makers built it"


def test_all_that_was_found_is_kept_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path)
    assert audit.show(site, "the build of oar 1.2.0 cpu", [judge(file(AVX), V3, {})]) is None
    out = capsys.readouterr().out
    assert "held to x86-64-v3" in out
    kept = json.loads((site.out / "audit" / "the-build-of-oar-1.2.0-cpu.json").read_text())
    assert kept[0]["file"]["verdict"]["extensions"]["AVX"]["places"][0]["function"] == "axpy"


def test_a_receipt_changes_with_the_code_that_judges() -> None:
    assert receipts.code_of("isa", "audit") != receipts.code_of("isa")


def test_a_popcnt_is_of_the_row_without_avx() -> None:
    assert not judge(file(elf(POPCNT + RET)), V2, {}).fails
