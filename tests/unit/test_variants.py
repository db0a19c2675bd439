"""The table of variants, and how one is chosen from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway import variants
from slipway.errors import BAD_CONFIG, USAGE, SlipwayError
from slipway.variants import (
    CUDA_KNOWN,
    LEVEL_FLAGS,
    TABLE,
    Variant,
    best_for_host,
    check,
    choose,
    levels_of_host,
)


def cpuinfo(*levels: str, but: str = "") -> str:
    """What Linux says of a CPU with the flags of these levels."""
    flags = [flag for level in levels for flag in LEVEL_FLAGS[level] if flag != but]
    return f"processor\t: 0\nmodel name\t: a CPU\nflags\t\t: {' '.join(flags)} vmx\n"


LEVELS = list(LEVEL_FLAGS)


@pytest.mark.parametrize("count", range(1, len(LEVELS) + 1))
def test_a_cpu_has_the_levels_whose_flags_it_lists(count: int) -> None:
    assert levels_of_host(cpuinfo(*LEVELS[:count])) == LEVELS[:count]


@pytest.mark.parametrize("flag", LEVEL_FLAGS["x86-64-v3"])
def test_one_missing_flag_costs_the_level(flag: str) -> None:
    assert levels_of_host(cpuinfo(*LEVELS[:3], but=flag)) == LEVELS[:2]


def test_a_level_needs_those_below_it() -> None:
    assert levels_of_host(cpuinfo("x86-64", "x86-64-v3")) == ["x86-64"]


def test_a_cpu_that_is_no_x86_has_no_level() -> None:
    assert levels_of_host("processor : 0\nFeatures : fp asimd sse sse2\n") == []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(variants, "CPUINFO", file)
    return file


@pytest.mark.parametrize(
    ("levels", "best"), [(LEVELS, "cpu"), (LEVELS[:3], "cpu"), (LEVELS[:2], "noavx")]
)
def test_the_best_variant_is_the_highest_that_the_host_runs(
    host: Path, levels: list[str], best: str
) -> None:
    host.write_text(cpuinfo(*levels))
    for names in (["cpu", "noavx"], ["noavx", "cpu"]):
        chosen, why = best_for_host(TABLE, names)
        assert chosen == best
        assert TABLE[best].isa in why


def test_only_the_variants_that_were_made_are_chosen_from(host: Path) -> None:
    host.write_text(cpuinfo(*LEVELS))
    assert best_for_host(TABLE, ["noavx"])[0] == "noavx"


def test_a_variant_with_cuda_is_chosen_only_where_a_gpu_is_known(host: Path) -> None:
    for levels, with_gpu, without in ((LEVELS, "gpu", "cpu"), (LEVELS[:2], "gpu-noavx", "noavx")):
        host.write_text(cpuinfo(*levels))
        assert best_for_host(TABLE, list(TABLE))[0] == without
        assert best_for_host(TABLE, list(TABLE), has_gpu=True)[0] == with_gpu
    host.unlink()
    assert best_for_host(TABLE, ["gpu", "noavx"])[0] == "noavx"


def test_with_a_gpu_the_reason_says_so(host: Path) -> None:
    host.write_text(cpuinfo(*LEVELS))
    assert best_for_host(TABLE, list(TABLE), has_gpu=True)[1].startswith("this host has a GPU; ")
    assert "GPU" not in best_for_host(TABLE, list(TABLE))[1]
    assert best_for_host(TABLE, ["cpu", "gpu-noavx"], has_gpu=True)[0] == "gpu-noavx"
    host.unlink()
    assert best_for_host(TABLE, ["cpu", "gpu"], has_gpu=True)[0] == "gpu"


@pytest.mark.parametrize(
    ("cuda", "able", "unable"),
    [
        (["sm_80", "sm_90"], [80, 86, 89, 90, 100, 121], [75]),
        (["sm_86"], [86, 89, 90, 120], [80]),
        (["sm_80", "sm_90a"], [80, 89, 90], [75, 100, 120]),
        (["sm_90a"], [90], [89, 100]),
        (["sm_100f"], [100, 103], [90, 110, 120]),
        ([], [], [90]),
    ],
)
def test_code_runs_on_its_gpu_s_family_and_ptx_on_later_ones(
    cuda: list[str], able: list[int], unable: list[int]
) -> None:
    row = Variant(isa="x86-64-v3", cuda=tuple(cuda))
    assert [n for n in (*able, *unable) if row.runs_on(n)] == able


def test_the_known_gpus_are_those_of_the_compiler_s_help() -> None:
    shown = "75 80 86 87 88 89 90 90a 100 100a 100f 103 103a 103f 110 110a 110f"
    shown += " 120 120a 120f 121 121a 121f"
    assert [f"sm_{name}" for name in shown.split()] == list(CUDA_KNOWN)


@pytest.mark.parametrize(
    ("arch", "near"),
    [("sm_99x", "sm_90"), ("sm90", "sm_90"), ("compute_80", "sm_80")],
)
def test_a_gpu_that_the_compiler_does_not_know_is_answered_with_the_nearest(
    arch: str, near: str
) -> None:
    with pytest.raises(SlipwayError, match=rf"variants\.gpu\.cuda: .* no '{arch}'") as caught:
        check({"gpu": Variant(isa="x86-64-v3", cuda=("sm_80", arch))})
    assert caught.value.code == BAD_CONFIG
    assert f"did you mean '{near}" in caught.value.cause
    assert "sm_121f" in caught.value.cause


def test_where_only_variants_with_cuda_were_made_one_is_asked_for_by_name(host: Path) -> None:
    host.write_text(cpuinfo(*LEVELS))
    with pytest.raises(SlipwayError, match="without a GPU: gpu, gpu-noavx") as caught:
        best_for_host(TABLE, ["gpu", "gpu-noavx"])
    assert caught.value.fix == ("the same command with --variant gpu",)


def test_cmake_is_told_machine_code_for_each_gpu_and_ptx_of_the_newest() -> None:
    assert TABLE["cpu"].cuda_architectures == ""
    assert TABLE["gpu"].cuda_architectures == "80-real;90-real;90-virtual"
    assert TABLE["gpu"].cuda == TABLE["gpu-noavx"].cuda


def test_a_variant_with_cuda_has_the_cpu_s_instruction_set() -> None:
    for name, twin in (("gpu", "cpu"), ("gpu-noavx", "noavx")):
        assert TABLE[name].isa == TABLE[twin].isa


def test_a_host_that_runs_none_is_told_what_it_is_and_what_they_need(host: Path) -> None:
    host.write_text(cpuinfo("x86-64", "x86-64-v2"))
    with pytest.raises(SlipwayError, match=r"x86-64-v2\) runs none of: cpu \(x86-64-v3\)"):
        best_for_host(TABLE, ["cpu"])


def test_a_host_that_cannot_be_asked_gets_the_first(host: Path) -> None:
    assert not host.exists()
    assert best_for_host(TABLE, ["noavx", "cpu"])[0] == "noavx"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("", ["noavx"]),
        ("cpu", ["cpu"]),
        ("noavx,cpu", ["noavx", "cpu"]),
        (" cpu , noavx ,", ["cpu", "noavx"]),
        ("cpu,cpu", ["cpu"]),
        ("all", ["cpu", "noavx", "gpu", "gpu-noavx"]),
    ],
)
def test_what_variant_means(wanted: str, names: list[str]) -> None:
    assert choose(TABLE, wanted, ["noavx"]) == names


def test_an_unknown_variant_is_answered_with_the_nearest() -> None:
    with pytest.raises(SlipwayError, match="no variant 'noavc'") as caught:
        choose(TABLE, "cpu,noavc", [])
    assert caught.value.code == USAGE
    assert caught.value.cause.startswith(
        "did you mean 'noavx'? known: all, cpu, gpu, gpu-noavx, noavx"
    )


def test_the_compiler_is_told_the_instruction_set_and_never_the_host_s() -> None:
    for row in TABLE.values():
        assert row.compiler_flags.split() == [f"-march={row.isa}", "-mtune=generic"]
        assert "native" not in row.compiler_flags


def test_the_table_stands() -> None:
    check(TABLE)
    assert all(row.isa in LEVEL_FLAGS for row in TABLE.values())


def test_two_rows_of_one_suffix_are_refused() -> None:
    with pytest.raises(SlipwayError, match="'cpu' and 'fast' have the same suffix ''") as caught:
        check({**TABLE, "fast": Variant(isa="x86-64-v4")})
    assert caught.value.code == BAD_CONFIG
