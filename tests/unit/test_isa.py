"""What an ELF file asks of a CPU, from bytes that are written out here."""

from __future__ import annotations

import struct

import pytest

from slipway import isa
from slipway.isa import UnreadableError, examine, members
from slipway.variants import LEVEL_FLAGS, TABLE
from tests.unit.elves import ADDPS_XMM, POPCNT, RET, TEXT, VADDPS_YMM, archive, elf

# One instruction each: its bytes, and what it needs.
INSTRUCTIONS = {
    "addps xmm": ("0f58c1", "SSE", "x86-64"),
    "paddd xmm": ("660ffec1", "SSE2", "x86-64"),
    "cmpxchg16b": ("480fc70f", "CMPXCHG16B", "x86-64-v2"),
    "lahf": ("9f", "LAHF", "x86-64-v2"),
    "popcnt": ("f30fb8c7", "POPCNT", "x86-64-v2"),
    "haddps xmm": ("f20f7cc1", "SSE3", "x86-64-v2"),
    "pshufb xmm": ("660f3800c1", "SSSE3", "x86-64-v2"),
    "pmulld xmm": ("660f3840c1", "SSE4_1", "x86-64-v2"),
    "crc32": ("f20f38f0c7", "SSE4_2", "x86-64-v2"),
    "vaddps ymm": ("c5fc58c1", "AVX", "x86-64-v3"),
    "vpaddd ymm": ("c5fdfec1", "AVX2", "x86-64-v3"),
    "vfmadd231ps ymm": ("c4e275b8c2", "FMA", "x86-64-v3"),
    "vcvtph2ps": ("c4e27d13c1", "F16C", "x86-64-v3"),
    "andn": ("c4e240f2c6", "BMI1", "x86-64-v3"),
    "mulx": ("c4e2fbf6c2", "BMI2", "x86-64-v3"),
    "lzcnt": ("f30fbdc7", "LZCNT", "x86-64-v3"),
    "movbe": ("0f38f007", "MOVBE", "x86-64-v3"),
    "xsave": ("0fae27", "XSAVE", "x86-64-v3"),
    "vpaddd zmm": ("62f17d48fec1", "AVX512F", "x86-64-v4"),
}
OF_NO_LEVEL = {
    "aesenc": ("660f38dcc1", "AES"),
    "pclmulqdq": ("660f3a44c100", "PCLMULQDQ"),
    "sha256rnds2": ("0f38cbc1", "SHA"),
    "rdrand": ("0fc7f0", "RDRAND"),
    "rdtscp": ("0f01f9", "RDTSCP"),
    "vpdpbusd, of VEX": ("c4e27150c2", "AVX_VNNI"),
    "tdpbssd": ("c4e25b5ed1", "AMX_INT8"),
    "xsavec": ("0fc727", "XSAVEC"),
    "adcx": ("660f38f6c1", "ADX"),
}
RUN_ANYWHERE = {
    "endbr64": "f30f1efa",
    "rdsspq": "f3480f1ec8",
    "nopw": "660f1f440000",
    "pause": "f390",
    "cpuid": "0fa2",
    "xgetbv": "0f01d0",
    "rdtsc": "0f31",
    "prefetchw": "0f0d0f",
    "mfence": "0faef0",
    "prefetchnta": "0f1807",
    "tzcnt, which is rep bsf": "f30fbcc7",
    "syscall": "0f05",
    "ud2": "0f0b",
    "int3": "cc",
    "fld": "d907",
    "cmov": "0f44c1",
    "fxsave": "0fae07",
    "paddd mm": "0ffec1",
}


def of(code: bytes) -> isa.Verdict:
    return examine(elf(code + RET, [("f", 0, len(code) + 1)]))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction_belongs_to_the_level_of_the_psabi(name: str) -> None:
    code, extension, level = INSTRUCTIONS[name]
    verdict = of(bytes.fromhex(code))
    assert list(verdict.extensions) == [extension]
    assert verdict.level == level
    assert verdict.outside == []
    assert verdict.undecoded == verdict.data == 0


@pytest.mark.parametrize("name", OF_NO_LEVEL)
def test_what_is_of_no_level_is_beyond_every_one(name: str) -> None:
    code, extension = OF_NO_LEVEL[name]
    verdict = of(bytes.fromhex(code))
    assert verdict.outside == [extension]
    assert all(extension in verdict.beyond(level) for level in LEVEL_FLAGS)


@pytest.mark.parametrize("name", RUN_ANYWHERE)
def test_what_every_cpu_runs_or_passes_over_is_held_against_nobody(name: str) -> None:
    verdict = of(bytes.fromhex(RUN_ANYWHERE[name]))
    assert verdict.extensions == {}
    assert verdict.level == "x86-64"


def test_every_flag_of_the_table_is_an_extension_that_the_decoder_knows() -> None:
    import iced_x86

    known = {name for name in vars(iced_x86.CpuidFeature) if name.isupper()} | {"LAHF"}
    assert set(isa.LEVEL_OF) <= known


def test_an_instruction_that_needs_two_extensions_counts_for_both() -> None:
    verdict = of(bytes.fromhex("c4e279dcc1"))  # vaesenc xmm
    assert list(verdict.extensions) == ["AVX", "AES"]
    assert verdict.beyond("x86-64-v3") == ["AES"]


def test_each_level_has_what_the_levels_before_it_have() -> None:
    verdict = of(POPCNT + VADDPS_YMM)
    assert verdict.beyond(TABLE["noavx"].isa) == ["AVX"]
    assert verdict.beyond(TABLE["cpu"].isa) == []
    assert verdict.beyond("x86-64") == ["POPCNT", "AVX"]


def test_the_function_is_named_with_offset_text_and_count() -> None:
    code = RET * 16 + ADDPS_XMM + VADDPS_YMM * 3 + RET
    verdict = examine(elf(code, [("start", 0, 16), ("axpy", 16, len(code) - 16)]))
    use = verdict.extensions["AVX"]
    assert (use.count, use.functions) == (3, 1)
    (place,) = use.places
    assert (place.function, place.offset, place.address) == ("axpy", 3, TEXT + 19)
    assert str(place) == "axpy+0x3: vaddps ymm0,ymm0,ymm1"
    assert verdict.named_by == "symbols"


def test_a_stripped_library_is_told_by_the_nearest_dynamic_symbol() -> None:
    code = RET * 16 + VADDPS_YMM + RET
    verdict = examine(elf(code, [("exported", 0, 8)], dynamic=True))
    assert str(verdict.extensions["AVX"].places[0]).startswith("exported+0x10: vaddps")
    assert verdict.named_by == "dynamic symbols"


def test_without_any_symbol_the_section_is_named() -> None:
    verdict = examine(elf(RET + VADDPS_YMM))
    assert str(verdict.extensions["AVX"].places[0]).startswith(".text+0x1: ")
    assert verdict.named_by == "sections"


def test_without_sections_the_segment_is_decoded() -> None:
    verdict = examine(elf(RET + VADDPS_YMM, sections=False))
    assert str(verdict.extensions["AVX"].places[0]).startswith("segment 0+0x1: ")


def test_split_off_symbols_name_what_was_stripped() -> None:
    code = RET * 4 + VADDPS_YMM + RET
    apart = elf(code, [("hidden", 4, 5)], code_is_here=False)
    verdict = examine(elf(code, dynamic=True), apart)
    assert str(verdict.extensions["AVX"].places[0]).startswith("hidden+0x0: ")
    assert verdict.named_by == "symbols"


def test_the_sections_of_an_object_file_stand_at_their_offsets() -> None:
    verdict = examine(elf(RET + VADDPS_YMM, [("f", 1, 4)], relocatable=True))
    assert str(verdict.extensions["AVX"].places[0]).startswith("f+0x0: ")


def test_the_build_id_is_what_a_file_and_its_symbols_have_in_common() -> None:
    assert isa.parse(elf(RET, build_id=b"\xab\xcd" * 10)).build_id == "abcd" * 10
    assert isa.parse(elf(RET)).build_id == ""


# -- data in code

TABLE_OF_BYTES = VADDPS_YMM * 2 + b"\x06\x07" * 8  # no instruction in 64-bit mode


def test_a_table_between_functions_is_no_code() -> None:
    code = RET * 8 + TABLE_OF_BYTES + ADDPS_XMM + RET
    verdict = examine(elf(code, [("f", 0, 8), ("g", 8 + len(TABLE_OF_BYTES), 4)]))
    assert list(verdict.extensions) == ["SSE"]
    assert verdict.data == len(TABLE_OF_BYTES)
    assert verdict.code == len(code) - len(TABLE_OF_BYTES)


def test_a_table_within_a_function_does_not_hide_what_follows_it() -> None:
    code = b"\x06\x07\x06" + VADDPS_YMM + RET
    verdict = examine(elf(code, [("f", 0, len(code))]))
    assert verdict.extensions["AVX"].places[0].offset == 3
    assert verdict.undecoded == 3


def test_code_that_nothing_names_counts_where_all_of_it_decodes() -> None:
    verdict = examine(elf(RET * 8 + VADDPS_YMM + RET, [("f", 0, 8)]))
    assert "AVX" in verdict.extensions
    assert verdict.data == 0


def test_where_nothing_is_known_everything_counts() -> None:
    verdict = examine(elf(TABLE_OF_BYTES))
    assert "AVX" in verdict.extensions
    assert verdict.undecoded == 16


def test_unwind_entries_vouch_for_code_in_a_stripped_file() -> None:
    code = RET * 8 + b"\x06" + VADDPS_YMM + RET
    told = elf(code, [("f", 0, 8)], dynamic=True, unwind=[(0, 8), (8, len(code) - 8)])
    assert "AVX" in examine(told).extensions
    untold = elf(code, [("f", 0, 8)], dynamic=True, unwind=[(0, 8)])
    assert "AVX" not in examine(untold).extensions


def test_a_label_of_assembly_begins_something_of_its_own() -> None:
    code = RET * 8 + VADDPS_YMM + RET + b"\x06" * 8
    labels = [("kernel", 8, 0), ("constants", 13, 0)]
    verdict = examine(elf(code, [("f", 0, 8)], labels=labels))
    assert verdict.extensions["AVX"].places[0].function == "kernel"
    assert verdict.data == 8


def test_a_function_without_a_size_reaches_to_the_next() -> None:
    code = VADDPS_YMM + b"\x06" + RET + ADDPS_XMM + RET
    verdict = examine(elf(code, [("f", 0, 0), ("g", 6, 4)]))
    assert sorted(verdict.extensions) == ["AVX", "SSE"]
    assert verdict.code == len(code)


def test_no_byte_of_a_section_is_left_out() -> None:
    extents = [
        isa.Extent(TEXT + 2, TEXT + 8, "a", True),
        isa.Extent(TEXT + 4, TEXT + 6, "inner", True),
        isa.Extent(TEXT + 10, TEXT + 99, "past the end", True),
    ]
    section = isa.parse(elf(b"\x90" * 20)).code[0]
    cut = list(isa.regions(section, extents))
    assert [(r.start - TEXT, r.end - TEXT) for r in cut] == [(0, 2), (2, 8), (8, 10), (10, 20)]
    assert [(r.start, r.end) for r in isa.regions(section, [])] == [(TEXT, TEXT + 20)]


def test_legacy_and_new_vector_code_are_counted_apart() -> None:
    assert of(ADDPS_XMM * 2 + VADDPS_YMM).vectors == (2, 1)
    assert of(bytes.fromhex("0faef0")).vectors == (0, 0)  # a fence is of SSE2, and no vector code
    assert of(bytes.fromhex("62f17d48fec1")).vectors == (0, 1)


def test_functions_beyond_the_limit_are_counted_and_not_listed() -> None:
    number = isa.MAX_PLACES + 7
    functions = [(f"f{i}", 4 * i, 4) for i in range(number)]
    use = examine(elf(VADDPS_YMM * number, functions)).extensions["AVX"]
    assert (use.functions, len(use.places)) == (number, isa.MAX_PLACES)


# -- what is no whole ELF file of x86-64


@pytest.mark.parametrize(("machine", "name"), [(3, "i386"), (183, "aarch64"), (999, "machine 999")])
def test_another_cpu_is_named(machine: int, name: str) -> None:
    with pytest.raises(UnreadableError, match=f"is for {name}, not for x86-64"):
        examine(elf(RET, machine=machine))


def test_a_file_of_the_other_byte_order_is_named() -> None:
    data = bytearray(elf(RET))
    data[5] = 2
    data[18:20] = struct.pack(">H", 22)
    with pytest.raises(UnreadableError, match="is for s390x"):
        examine(bytes(data))


@pytest.mark.parametrize("left", [10, 63, 64, 100, 140, -65, -1])
def test_a_file_that_is_cut_off_says_what_is_not_there(left: int) -> None:
    data = elf(RET * 64, [("f", 0, 64)])
    with pytest.raises(UnreadableError, match=r"is cut off: .*\d+"):
        examine(data[:left])


def test_code_that_is_cut_off_is_no_code_that_passes() -> None:
    data = elf(RET * 64, sections=False)
    with pytest.raises(UnreadableError, match="segment 0 ends at byte"):
        examine(data[: 64 + 56 + 10])


def test_split_off_symbols_that_are_no_elf_file_are_refused() -> None:
    with pytest.raises(UnreadableError, match="is cut off"):
        examine(elf(RET), b"\x7fELF")


# -- archives


def test_members_of_an_archive_are_found_by_their_names() -> None:
    made = archive({"a.o": b"odd", "b.o": b"even"})
    assert dict(members(made)) == {"a.o": b"odd", "b.o": b"even"}


def test_long_names_stand_in_a_table_of_their_own() -> None:
    names = b"a_name_longer_than_fifteen.o/\n"
    made = archive({"/": names, "x": b""})
    head = f"{'/0':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{2:<10}`\n".encode()
    assert ("a_name_longer_than_fifteen.o", b"ab") in list(members(made + head + b"ab"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive({"a.o": b"content"})[:-4], "is cut off"),
        (archive({"a.o": b"content"}) + b"x" * 60, "is no archive: no member begins at byte"),
    ],
)
def test_a_damaged_archive_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        list(members(data))
