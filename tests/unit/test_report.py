"""The page about a release."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from slipway import report, sbom
from slipway.report import Bar, Segment
from slipway.sbom import Part
from tests.unit.fakes import BASE_LAYER, EPOCH, make_layer, make_manifest

VOID = {"meta", "br", "rect"}


class Nesting(HTMLParser):
    """Refuses a tag that closes what is not open, and collects what is linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def bill(directory: Path, *parts: tuple[str, str]) -> None:
    found = [
        Part(name, version, sbom.debian_purl("debian", name, version)) for name, version in parts
    ]
    main = Part("oar", "1", "", kind="container", needs=sbom.roots(found))
    (directory / "sbom").mkdir(parents=True)
    (directory / "sbom" / "oar-1.cdx.json").write_text(sbom.document(main, found, EPOCH))


def text_of(page: str) -> str:
    return re.sub(r"<[^>]*>", " ", page)


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    bill(tmp_path, ("libc6", "2.41-12"))
    page = report.page(tmp_path, make_manifest(), None)
    nesting = Nesting()
    nesting.feed(page)
    assert nesting.open == []
    assert nesting.links
    assert all(link.startswith("#") for link in nesting.links)
    assert all(f'id="{link[1:]}"' in page for link in nesting.links)
    assert "@import" not in page
    assert "url(" not in page
    assert report.page(tmp_path, make_manifest(), None) == page


def test_the_page_has_every_number_of_the_manifest_as_text(tmp_path: Path) -> None:
    bill(tmp_path, ("libc6", "2.41-12"))
    manifest = make_manifest()
    text = text_of(report.page(tmp_path, manifest, None))
    for image in manifest.images:
        assert image.alias in text
        assert image.id in text
    for file in manifest.files:
        assert file.sha256 in text
    assert "166.1 MB" in text
    assert "1405.4 MB in all" in text  # each layer once
    assert "1 min 53 s" in text
    assert "0.1 s, unchanged" in text
    assert "41\u2009222" in text
    assert "test_on_a_gpu" in text
    assert "libc6" in text
    assert "There is no release before this one." in text


def test_layers_are_marked_by_how_many_images_have_them(tmp_path: Path) -> None:
    page = report.images(make_manifest())
    kinds = re.findall(r'<rect class="(\w+)"', page)
    assert kinds == ["all", "all", "some", "all", "all", "own", "all", "all", "some", "own"]


def test_what_a_name_holds_is_no_markup(tmp_path: Path) -> None:
    layer = make_layer("f", 5, "RUN <script>alert(1)</script> && x")
    image = make_manifest().images[0]
    evil = replace(image, alias="<b>&", layers=(layer,))
    page = report.page(tmp_path, make_manifest(images=(evil,)), None)
    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page


def test_a_rehearsal_says_that_it_is_one(tmp_path: Path) -> None:
    words = "nothing of it has been published"
    assert words in report.page(tmp_path, make_manifest(is_rehearsal=True), None)
    assert words not in report.page(tmp_path, make_manifest(), None)


def test_what_changed_since_the_release_before_is_told(tmp_path: Path) -> None:
    bill(tmp_path / "new", ("libc6", "2.41-12"), ("libnew", "1"), ("same", "1"), ("oar", "2"))
    bill(tmp_path / "old", ("libc6", "2.40-1"), ("libold", "1"), ("same", "1"), ("oar", "1"))
    old = make_manifest("1.1.0", variants=("cpu", "noavx", "gpu"), base="sha256:other")
    smaller = replace(old.images[0], size=old.images[0].size - 1_500_000)
    old = replace(old, images=(smaller, old.images[1]), tests=old.tests[:1], files=old.files[:2])
    text = text_of(report.page(tmp_path / "new", make_manifest(), old, tmp_path / "old"))
    text = re.sub(r"\s+", " ", text)
    assert "What changed since 1.1.0" in text
    assert "oar:1.2.0 164.6 MB 166.1 MB +1.5 MB" in text
    assert "oar:1.2.0-noavx 166.0 MB 166.0 MB as before" in text
    assert "oar-book:1.2.0 - 1401.9 MB new" in text
    assert "linux_x86_64.whl - 240 kB new" in text
    assert "tests executed 199 398 +199" in text
    assert "Not made any more: gpu." in text
    assert "The base image is another one." in text
    assert "Parts that came, went or moved: 3" in text  # and not the release's own packages
    for row in ("libc6 2.40-1 2.41-12", "libnew - 1", "libold 1 -"):
        assert row in text


def test_a_release_of_packages_alone_has_no_empty_sections(tmp_path: Path) -> None:
    manifest = make_manifest(images=(), tests=(), isa=(), steps=())
    page = report.page(tmp_path, manifest, None)
    for mark in ("images", "tests", "isa", "time", "parts"):
        assert f'"{mark}"' not in page
        assert f'"#{mark}"' not in page
    assert 'id="packages"' in page


@pytest.mark.parametrize(
    ("values", "widths"), [([10.0, 5.0], [560, 280]), ([0.0], [1]), ([0.001, 1000.0], [1, 560])]
)
def test_bars_are_on_one_scale_and_never_invisible(values: list[float], widths: list[int]) -> None:
    bars = [Bar("x", (Segment(v, "all"),), str(v)) for v in values]
    found = re.findall(r'width="([\d.]+)"', report.picture(bars, "t"))
    assert [round(float(w)) for w in found] == widths


def test_a_label_stands_inside_a_bar_only_where_it_fits() -> None:
    wide, narrow = Segment(100, "all", "78.6 MB"), Segment(1, "own", "0.1 MB", "the whole story")
    drawn = report.picture([Bar("x" * 60, (wide, narrow), "79 MB")], "t")
    assert re.findall(r'class="inside"[^>]*>([^<]*)', drawn) == ["78.6 MB"]
    assert "<title>the whole story</title>" in drawn
    assert f"<title>{'x' * 60}</title>" in drawn


@pytest.mark.parametrize(
    ("made_by", "shown"),
    [
        ("RUN |2 A=1 B= /bin/sh -c apt-install x # buildkit", "RUN apt-install x"),
        ("RUN /bin/sh -c true # buildkit", "RUN true"),
        ("COPY about /usr/local/bin/about # buildkit", "COPY about /usr/local/bin/about"),
        ("", "the base image"),
    ],
)
def test_an_instruction_is_shown_as_it_was_written(made_by: str, shown: str) -> None:
    assert report.instruction(made_by) == shown


def test_a_part_says_where_it_is_from() -> None:
    assert report.origin("pkg:deb/debian/libc6@2.41-12?arch=amd64") == "deb/debian"
    assert report.origin("pkg:pypi/numpy@2") == "pypi"


def test_a_long_name_loses_its_middle() -> None:
    assert report.shortened("oar_1.2.0_amd64.deb", 40) == "oar_1.2.0_amd64.deb"
    assert report.shortened("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb"


def test_layers_that_all_share_are_counted_once() -> None:
    image = make_manifest().images[0]
    only = replace(image, layers=(BASE_LAYER,), size=BASE_LAYER.size)
    twice = make_manifest(images=(only, replace(only, alias="oar:1.2.0-noavx")))
    assert "157.2 MB; a registry and an engine keep each shared layer once, 78.6 MB" in text_of(
        report.images(twice)
    )
