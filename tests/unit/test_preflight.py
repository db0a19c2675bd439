"""What is said on a CPU that lacks a variant's instructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from slipway import production
from slipway.base import Base
from slipway.images import dev_recipe
from slipway.packages import Deb
from slipway.preflight import LEVELS, header, instead, refusal, sentences
from slipway.project import Tree
from slipway.variants import LEVEL_FLAGS, LEVEL_WORDS, TABLE, Variant
from tests.unit.fakes import ROWS, make_project, make_site, make_tree

WIDE = Variant(isa="x86-64-v4", suffix="-wide")
ODD = Variant(isa="haswell", suffix="-odd")


def tree_with(root: Path, rows: Mapping[str, Variant]) -> Tree:
    return make_tree(root, variants=rows)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return tree_with(tmp_path, TABLE)


def test_the_sentence_names_what_is_needed_what_is_there_and_what_to_use(tree: Tree) -> None:
    assert sentences(tree, "cpu") == {
        "x86-64": "oar 1.2.0 needs a CPU with x86-64-v3 (AVX2, FMA), and this one has x86-64: "
        "no variant of oar runs on it",
        "x86-64-v2": "oar 1.2.0 needs a CPU with x86-64-v3 (AVX2, FMA), and this one has "
        "x86-64-v2: use the package oar-noavx or the image oar:1.2.0-noavx",
    }
    assert sentences(tree, "noavx") == {
        "x86-64": "oar-noavx 1.2.0 needs a CPU with x86-64-v2 (SSE4.2), and this one has x86-64: "
        "no variant of oar runs on it"
    }


def test_where_the_cpu_s_level_is_not_known_the_sentence_says_all(tree: Tree) -> None:
    assert refusal(tree, "cpu") == (
        "oar 1.2.0 needs a CPU with x86-64-v3 (AVX2, FMA), which this one lacks: on one with "
        "x86-64-v2 (SSE4.2) use the package oar-noavx or the image oar:1.2.0-noavx, and no "
        "variant of oar runs on less"
    )
    assert refusal(tree, "noavx") == (
        "oar-noavx 1.2.0 needs a CPU with x86-64-v2 (SSE4.2), which this one lacks: "
        "no variant of oar runs on it"
    )


def test_a_variant_that_every_cpu_runs_has_nothing_to_say(tmp_path: Path) -> None:
    rows = {"any": Variant(isa="x86-64"), "wide": WIDE}
    assert sentences(tree_with(tmp_path, rows), "any") == {}
    assert refusal(tree_with(tmp_path, rows), "any") == ""
    assert "no variant" not in refusal(tree_with(tmp_path, rows), "wide")


@pytest.mark.parametrize(
    ("variant", "level", "other"),
    [
        ("wide", "x86-64-v3", "cpu"),
        ("wide", "x86-64-v2", "noavx"),
        ("wide", "x86-64", ""),
        ("cpu", "x86-64-v2", "noavx"),
        ("gpu", "x86-64-v2", "gpu-noavx"),
    ],
)
def test_the_highest_variant_that_runs_is_chosen_and_with_cuda_only_for_who_has_it(
    tmp_path: Path, variant: str, level: str, other: str
) -> None:
    for rows in ({**TABLE, "wide": WIDE}, {"wide": WIDE, **dict(reversed(TABLE.items()))}):
        assert instead(tree_with(tmp_path, rows), variant, level) == other


def test_who_has_cuda_is_told_where_only_a_variant_without_it_runs(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, {n: TABLE[n] for n in ("cpu", "noavx", "gpu")})
    assert sentences(tree, "gpu")["x86-64-v2"].endswith(
        "use the package oar-noavx or the image oar:1.2.0-noavx, which is without CUDA"
    )
    alone = tree_with(tmp_path, {n: TABLE[n] for n in ("cpu", "gpu-noavx")})
    assert sentences(alone, "cpu")["x86-64-v2"].endswith("no variant of oar runs on it")


def test_a_row_of_no_psabi_level_is_neither_checked_nor_recommended(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, {"odd": ODD, "cpu": TABLE["cpu"]})
    assert sentences(tree, "odd") == {}
    assert refusal(tree, "odd") == ""
    assert "oar-odd" not in "".join(sentences(tree, "cpu").values())


def test_every_sentence_is_one_that_cmake_and_a_c_string_hold(tree: Tree) -> None:
    said = [s for name in TABLE for s in sentences(tree, name).values()]
    for text in (*said, *(refusal(tree, name) for name in TABLE)):
        assert text
        assert not set(text) & set('"\\;\n')


def test_levels_in_words_are_the_levels() -> None:
    assert list(LEVEL_WORDS) == list(LEVEL_FLAGS)


def test_the_header_has_every_level_and_a_sentence_for_those_too_low() -> None:
    lines = header({"x86-64": 'say "no"'}).splitlines()
    assert lines[1] == r'LEVEL("x86-64", "say \"no\"")'
    assert lines[2:] == [f'LEVEL("{level}", "")' for level in LEVELS[1:]]


def test_a_project_hands_the_sentence_to_its_own_build(tmp_path: Path) -> None:
    own = make_project(build={"options": {"R": "{refusal}"}})
    tree = replace(make_tree(tmp_path, variants=TABLE), project=own)
    assert tree.options("noavx") == {"R": refusal(tree, "noavx")}


def test_the_production_image_gets_its_sentences_and_the_compiler_of_the_dev_image(
    tmp_path: Path,
) -> None:
    base = Base("debian:trixie-slim", "sha256:1")
    site = make_site(tmp_path)
    deb = Deb(tmp_path / "oar.deb", None, 0, fresh=False)
    made = production.recipe(site, deb, base)
    assert made.files["preflight/levels.h"] == header(sentences(site.tree, "cpu"))
    assert made.arguments["DEV"] == dev_recipe(site.workshop, base).tag
    other = replace(site, tree=replace(site.tree, variants={"cpu": ROWS["cpu"]}))
    keys = {made.key, production.recipe(other, deb, base).key}
    (tmp_path / "scripts" / "preflight.c").write_text("changed")
    keys.add(production.recipe(site, deb, base).key)
    (tmp_path / "requirements-image.txt").write_text("another dev image")
    keys.add(production.recipe(site, deb, base).key)
    assert len(keys) == 4
    assert "DEV" not in production.shared(site.workshop, site.tree, base).arguments
