"""The proof of the instruction set, on what the dev image's compiler makes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway import base
from slipway.settings import Settings, Workshop
from slipway.variants import CPUINFO, levels_of_host
from tests.integration.conftest import Built
from tests.integration.workbench import Done, refused, succeed, tree

AARCH64 = (183).to_bytes(2, "little")
FLOATS = "float two_of(float x) { return x * 0.5f; }\nint two() { return (int)two_of(4.0f); }\n"


@pytest.fixture(autouse=True)
def only_its_own_packages(built: Built) -> Iterator[None]:
    """Other tests take what lies in dist/ for Oar's."""
    dist = built.checkout.root / "dist"
    before = set(dist.iterdir())
    yield
    for directory in set(dist.iterdir()) - before:
        shutil.rmtree(directory)


def named(tiny: Path, name: str) -> Path:
    """Give the tree a name of its own, so that no other test's package is taken for its."""
    file = tiny / "project.yaml"
    text = file.read_text().replace("name: tiny", f"name: {name}")
    file.write_text(text.replace("variants: {cpu: {}}", "variants: {cpu: {}, noavx: {}}"))
    return tiny


def type_(built: Built, task: str, tiny: Path, variant: str, *more: str) -> Done:
    return built.checkout.invoke(task, "--project", str(tiny), "--variant", variant, *more)


def not_packaged(built: Built, name: str) -> None:
    assert list((built.checkout.root / "dist").glob(f"{name}-*/*")) == []


def plant(tiny: Path) -> None:
    """One AVX instruction, which no flag of a compiler would make."""
    code = 'int one() { asm volatile("vaddps %%ymm0, %%ymm1, %%ymm2" ::: "xmm2"); return 1; }\n'
    (tiny / "one.cc").write_text(code)


def test_one_planted_avx_instruction_is_caught_and_nothing_is_packaged(
    built: Built, tiny: Path
) -> None:
    plant(named(tiny, "planted"))
    error = refused(
        type_(built, "deb", tiny, "noavx"),
        65,
        "planted-noavx_",
        "goes beyond x86-64-v2 in 1 of 1 files",
        "usr/bin/tiny: AVX",
        "AVX in _Z3onev+0x",  # named by the symbols that were split off
        "vaddps ymm2,ymm1,ymm0",
        str(tiny),
    )
    assert "audit: {allow:" in error
    not_packaged(built, "planted")
    refused(type_(built, "audit", tiny, "noavx"), 65, "the build of planted 1.0", "_Z3onev")
    succeed(type_(built, "deb", tiny, "cpu"))


def test_what_asks_the_cpu_first_is_allowed_by_name_with_a_reason(built: Built, tiny: Path) -> None:
    plant(named(tiny, "dispatched"))
    with (tiny / "project.yaml").open("a") as stream:
        stream.write("audit: {allow: {'**/tiny:_Z3onev': one asks CPUID}}\n")
    said = succeed(type_(built, "deb", tiny, "noavx"))
    assert "1 beyond it by the allow-list" in said
    refused(type_(built, "audit", tiny, "noavx"), 65, "one.cc.o: AVX")  # which is not named


def test_an_allowance_without_a_reason_is_refused(built: Built, tiny: Path) -> None:
    with (tiny / "project.yaml").open("a") as stream:
        stream.write("audit: {allow: {'**/tiny': ''}}\n")
    refused(type_(built, "build", tiny, "cpu"), 78, "'**/tiny' has no reason")


def test_march_native_in_a_third_party_cmakelists_is_caught(built: Built, tiny: Path) -> None:
    named(
        tree(
            tiny,
            cmake="""\
            add_subdirectory(third_party)
            target_link_libraries(tiny PRIVATE third)
            """,
            two="float scaled(float);\nint two() { return (int)scaled(1.0f); }\n",
        ),
        "native",
    )
    (tiny / "third_party").mkdir()
    (tiny / "third_party" / "CMakeLists.txt").write_text(
        "add_compile_options(-march=native)\nadd_library(third STATIC third.cc)\n"
    )
    (tiny / "third_party" / "third.cc").write_text("float scaled(float x) { return x * 2.0f; }\n")
    done = type_(built, "deb", tiny, "noavx")
    if "x86-64-v3" not in levels_of_host(CPUINFO.read_text()):
        succeed(done)  # this machine's own instructions are the row's
        return
    error = refused(done, 65, "goes beyond x86-64-v2", "_Z6scaledf+0x")
    assert "march=" in error
    not_packaged(built, "native")
    refused(type_(built, "audit", tiny, "noavx"), 65, "libthird.a(third.cc.o): AVX")


def test_a_cpu_build_without_any_vector_code_of_its_level_is_refused(
    built: Built, tiny: Path
) -> None:
    named(tree(tiny, two=FLOATS), "slow")
    file = tiny / "CMakeLists.txt"
    dropped = 'set(CMAKE_CXX_FLAGS "-fno-inline")\nadd_executable'
    file.write_text(file.read_text().replace("add_executable", dropped))
    refused(
        type_(built, "deb", tiny, "cpu"),
        65,
        "has vector code, and none of x86-64-v3's",
        "CMAKE_CXX_FLAGS",
    )
    not_packaged(built, "slow")
    succeed(type_(built, "deb", tiny, "noavx"))  # of which nothing was lost


def test_the_same_code_with_the_variants_flags_passes(built: Built, tiny: Path) -> None:
    named(tree(tiny, two=FLOATS), "quick")
    said = succeed(type_(built, "deb", tiny, "cpu"))
    assert re.search(r"audited quick_.*\.deb: 1 ELF files of ours, x86-64-v3, ", said)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut", "tiny is cut off: the table of its sections ends at byte"),
        ("strange", "tiny is for aarch64, not for x86-64"),
    ],
)
def test_an_elf_file_that_cannot_be_read_is_an_error(
    built: Built, tiny: Path, name: str, words: str
) -> None:
    succeed(type_(built, "build", named(tiny, name), "cpu"))
    program = built.checkout.out / name / "cpu" / "build" / "tiny"
    whole = program.read_bytes()
    if name == "cut":
        program.write_bytes(whole[: len(whole) // 2])
    else:
        program.write_bytes(whole[:18] + AARCH64 + whole[20:])
    refused(type_(built, "audit", tiny, "cpu"), 65, f"the build of {name} 1.0 cpu: {words}")


def test_a_stripped_program_is_told_by_its_section(built: Built, tiny: Path) -> None:
    plant(named(tiny, "stripped"))
    succeed(type_(built, "build", tiny, "noavx"))
    succeed(type_(built, "shell", tiny, "noavx", "--", "strip", "tiny"))
    program = built.checkout.out / "stripped" / "noavx" / "build" / "tiny"
    done = type_(built, "audit", tiny, "noavx", "--path", str(program))
    refused(done, 65, "tiny: AVX", "AVX in .text+0x", "it is stripped, without a symbol")


def test_what_has_not_been_made_cannot_be_audited(built: Built, tiny: Path) -> None:
    named(tiny, "unmade")
    refused(type_(built, "audit", tiny, "cpu"), 66, "nothing of unmade 1.0 cpu has been made")
    missing = type_(built, "audit", tiny, "cpu", "--path", str(tiny / "nothing.so"))
    refused(missing, 66, "no file or directory")
    text = type_(built, "audit", tiny, "cpu", "--path", str(tiny / "one.cc"))
    refused(text, 65, "is no ELF file")
    refused(type_(built, "audit", tiny, "cpu", "--path", str(tiny)), 66, "holds no ELF file")


# -- images


@pytest.fixture
def image(built: Built, client: Any) -> str:
    """The production image of Oar for any CPU since 2013."""
    found = client.images.list(
        filters={
            "label": [
                f"slipway.checkout={built.checkout.name}",
                "slipway.project=oar",
                "slipway.variant=cpu",
            ]
        }
    )
    return str(found[0].tags[0])


def test_everything_that_is_packaged_has_been_audited(built: Built) -> None:
    said = built.first.stdout
    for variant, level in (("oar", "x86-64-v3"), ("oar-noavx", "x86-64-v2")):
        # The library, its Python module, and the module that asks the CPU; in the image also the
        # program that asks it first.
        assert re.search(rf"audited {variant}_.*\.deb: 3 ELF files of ours, {level}", said)
        line = re.search(rf"audited image slipway-\w+-{variant}:.*", said)
        assert line, said
        assert re.search(
            rf": 4 ELF files of ours, \d{{3,}} of others, {level}; \d+ beyond", line[0]
        )
    took = [float(s) for s in re.findall(r"audited image.*, ([\d.]+) s$", said, re.MULTILINE)]
    assert len(took) == 2
    assert max(took) <= 60  # with the base's packages, none of which was seen before
    assert min(took) <= 20  # without them


def test_an_audit_shows_all_that_was_made_and_by_which_reason_it_may(built: Built) -> None:
    said = succeed(built.checkout.invoke("audit", "--variant", "cpu,noavx"))
    for what in ("the build of oar", "oar_", "oar-noavx_", "image slipway-"):
        assert what in said
    assert re.search(r"liboar\.so\S* +x86-64-v3 .*AVX2.* ok", said)
    assert re.search(r"libc6 \(\d+ files\) +x86-64-v4 .* allowed: ld\.so", said)
    assert re.search(r"python3-numpy \(\d+ files\) .* allowed: NumPy", said)
    report = re.search(r"by name in (out/oar/cpu/audit/\S+\.json)", said)
    assert report
    assert '"function"' in (built.checkout.root / report[1]).read_text()


def test_the_image_of_one_variant_is_not_that_of_the_other(built: Built, image: str) -> None:
    done = built.checkout.invoke("audit", "--variant", "noavx", "--image", image)
    refused(done, 65, "does not hold the package oar-noavx")


def test_an_image_that_never_had_the_library_is_refused(built: Built) -> None:
    reference = base.ensure_base(Workshop(built.checkout.root, Settings())).reference
    done = built.checkout.invoke("audit", "--image", reference)
    refused(done, 65, f"the image {reference} does not hold the package oar", "and not that one")


@pytest.fixture
def without_library(built: Built, client: Any, image: str) -> Iterator[str]:
    """The production image, with the library removed behind dpkg's back."""
    label = {"slipway.checkout": built.checkout.name}
    script = ["-c", "rm /usr/lib/*/liboar.so.0*"]
    container = client.containers.create(image, script, entrypoint="sh", user="0", labels=label)
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0
        made = container.commit(f"slipway-{built.checkout.name}-without", tag="library")
    finally:
        container.remove(force=True)
    yield made.tags[0]
    client.images.remove(made.id, force=True)


def test_an_image_whose_library_is_gone_is_refused(built: Built, without_library: str) -> None:
    done = built.checkout.invoke("audit", "--image", without_library)
    refused(done, 65, "lacks /usr/lib/", "liboar.so.0", "one of oar's", "invoke prod")


def test_an_image_that_is_not_there_is_an_error(built: Built) -> None:
    done = built.checkout.invoke("audit", "--image", "slipway-no-such-image:0")
    refused(done, 66, "no image slipway-no-such-image:0")


def test_no_container_is_left_of_a_look_into_an_image(
    built: Built, client: Any, image: str
) -> None:
    succeed(built.checkout.invoke("audit", "--image", image))
    left = client.containers.list(all=True, filters={"ancestor": image, "status": "created"})
    assert left == []
