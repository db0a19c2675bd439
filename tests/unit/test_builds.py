"""Compiling and testing: what is decided before a job runs, and read after it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
from msgspec.structs import replace

from slipway import builds, coverage, images, testing
from slipway.builds import (
    Site,
    compiler_environment,
    configure_mode,
    inputs_of,
    links_out,
    nvcc_here,
    project_image,
)
from slipway.engine import Job, Mount
from slipway.errors import BAD_DATA, CANNOT_CREATE, NO_INPUT, USAGE, SlipwayError
from slipway.explain import BUILDING, explain
from slipway.gpu import Answer, Device
from slipway.processes import Heard
from slipway.testing import read_reports
from slipway.variants import TABLE
from tests.unit.fakes import EPOCH, make_site, make_workshop

# -- flags and caches


def test_the_flags_fix_the_instruction_set_and_hide_where_it_was_built(tmp_path: Path) -> None:
    for variant, row in TABLE.items():
        site = make_site(tmp_path, variant=variant, variants=TABLE)
        env = compiler_environment(site)
        assert env["CFLAGS"] == env["CXXFLAGS"]
        flags = shlex.split(env["CXXFLAGS"])
        assert flags == [
            *row.compiler_flags.split(),
            f"-ffile-prefix-map={site.tree.source}=/usr/src/oar",
            f"-ffile-prefix-map={site.build}=/usr/src/oar/build",
        ]


def test_a_path_with_a_space_is_one_flag(tmp_path: Path) -> None:
    site = make_site(tmp_path / "two words")
    flags = shlex.split(compiler_environment(site)["CXXFLAGS"])
    assert f"-ffile-prefix-map={site.tree.source}=/usr/src/oar" in flags


def test_the_compiler_cache_is_the_mount_in_a_container_and_the_user_s_in_place(
    tmp_path: Path,
) -> None:
    docker, host = make_site(tmp_path), make_site(tmp_path, host=True)
    assert compiler_environment(docker)["CCACHE_DIR"] == "/run/ccache"
    assert compiler_environment(host)["CCACHE_DIR"] == str(tmp_path / "cache" / "ccache")
    assert compiler_environment(host)["CCACHE_BASEDIR"] == str(tmp_path)


# -- the image


def test_a_debug_build_keeps_the_paths_and_takes_nothing_from_another_checkout_s_cache(
    tmp_path: Path,
) -> None:
    site = replace(make_site(tmp_path), build_type="debug")
    env = compiler_environment(site)
    assert env["CXXFLAGS"] == env["CFLAGS"] == site.tree.variants["cpu"].compiler_flags
    assert not {"CCACHE_BASEDIR", "CCACHE_NOHASHDIR"} & set(env)
    assert {"CCACHE_BASEDIR", "CCACHE_NOHASHDIR"} < set(compiler_environment(make_site(tmp_path)))


@pytest.mark.parametrize("system", ["make", "pep517"])
def test_what_has_no_build_type_of_its_own_gets_its_flags(tmp_path: Path, system: str) -> None:
    site = make_site(tmp_path, build={"system": system})
    assert compiler_environment(site)["CFLAGS"].startswith("-g -O2 ")
    debug = compiler_environment(replace(site, build_type="debug"))["CFLAGS"]
    assert debug == f"-g -O0 {site.tree.variants['cpu'].compiler_flags}"


def test_a_debug_build_has_a_directory_a_name_and_a_container_of_its_own(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    debug = replace(site, build_type="debug")
    assert (site.out.name, debug.out.name) == ("cpu", "cpu.debug")
    assert debug.title == "oar 1.2.0 cpu.debug"
    assert debug.flags == "--variant cpu --build-type debug"
    assert site.job("build", [], {}).name != debug.job("build", [], {}).name
    marked = replace(debug, workshop=replace(site.workshop, mark=".bookworm"))
    assert marked.out.name == "cpu.bookworm.debug"


def test_cmake_is_told_the_build_type_whatever_the_project_says(tmp_path: Path) -> None:
    site = make_site(tmp_path, build={"options": {"CMAKE_BUILD_TYPE": "Release", "A": "1"}})
    assert builds.build_options(site) == {"CMAKE_BUILD_TYPE": "Release", "A": "1"}
    debug = builds.build_options(replace(site, build_type="debug"))
    assert debug == {"CMAKE_BUILD_TYPE": "Debug", "A": "1"}


@pytest.mark.parametrize(
    ("backend", "key", "value"),
    [
        ("scikit_build_core.build", "cmake.build-type", "Debug"),
        ("mesonpy", "setup-args", "-Dbuildtype=debug"),
    ],
)
def test_a_known_backend_is_told_the_build_type(
    tmp_path: Path, backend: str, key: str, value: str
) -> None:
    site = make_site(tmp_path, build={"system": "pep517"})
    (site.tree.source / "pyproject.toml").write_text(f'build-backend = "{backend}"\n')
    released = builds.build_options(site)
    debug = builds.build_options(replace(site, build_type="debug"))
    assert debug[key] == value
    assert released[key] != value
    assert released.keys() == debug.keys()


def test_an_unknown_build_type_is_refused() -> None:
    assert builds.check_build_type("debug") == "debug"
    with pytest.raises(SlipwayError, match="no build type 'dbg'") as caught:
        builds.check_build_type("dbg")
    assert "did you mean 'debug'?" in caught.value.cause


def test_no_image_is_tested_of_what_is_never_packaged(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    for image, cpu in (("prod", ""), ("", "Nehalem")):
        with pytest.raises(SlipwayError, match="never packaged") as caught:
            testing.check_flags(workshop, "docker", image, cpu, "debug")
        assert caught.value.code == USAGE
    testing.check_flags(workshop, "docker", "", "", "debug")


def test_a_variant_with_cuda_is_built_in_an_image_with_its_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ensure_gpu", lambda _, dev: f"gpu on {dev}")
    monkeypatch.setattr(images, "ensure_project", lambda _, dev, name, *__: f"{name} on {dev}")
    site = make_site(tmp_path, variants=TABLE)
    made = {name: project_image(site.workshop, site.tree, name, "dev") for name in TABLE}
    assert made == {
        "cpu": "oar on dev",
        "noavx": "oar on dev",
        "gpu": "oar on gpu on dev",
        "gpu-noavx": "oar on gpu on dev",
    }


def test_the_compiler_of_cuda_is_looked_for_where_cmake_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDACXX", raising=False)
    assert not nvcc_here()
    (tmp_path / "nvcc").touch(mode=0o755)
    assert nvcc_here()
    monkeypatch.setenv("CUDACXX", str(tmp_path / "elsewhere"))
    assert not nvcc_here()


# -- whether to configure


def configured(site: Site, options: dict[str, str]) -> None:
    """What scripts/build leaves behind."""
    _, stamp, _ = configure_mode(site, compiler_environment(site), options)
    site.build.mkdir(parents=True)
    (site.build / ".slipway-configured").write_text(stamp)
    (site.build / "build.ninja").touch()


def mode(site: Site, options: dict[str, str], **env: str) -> str:
    return configure_mode(site, {**compiler_environment(site), **env}, options)[0]


def test_a_new_directory_is_configured_afresh(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    found, stamp, arguments = configure_mode(site, compiler_environment(site), {"A": "1", "B": ""})
    assert found == "fresh"
    assert json.loads(stamp)["toolchain"]["image"] == site.image
    assert arguments == ["-DA=1", "-DB="]


def test_the_same_again_is_not_configured(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    configured(site, {"A": "1", "B": "2"})
    assert mode(site, {"B": "2", "A": "1"}) == "no"
    assert mode(site, {"A": "1", "B": "2"}, CCACHE_MAXSIZE="1G", NINJA_STATUS="x") == "no"


def test_a_directory_without_ninja_s_file_is_configured_again(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    configured(site, {})
    (site.build / "build.ninja").unlink()
    assert mode(site, {}) == "again"


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"A": "2", "B": "2"}, ["-DA=2", "-DB=2"]),
        ({"A": "1", "B": "2", "C": "3"}, ["-DA=1", "-DB=2", "-DC=3"]),
        ({"B": "2"}, ["-UA", "-DB=2"]),
    ],
)
def test_other_options_are_configured_on_top_and_those_gone_are_unset(
    tmp_path: Path, options: dict[str, str], arguments: list[str]
) -> None:
    site = make_site(tmp_path)
    configured(site, {"A": "1", "B": "2"})
    found = configure_mode(site, compiler_environment(site), options)
    assert (found[0], found[2]) == ("again", arguments)


AFRESH: dict[str, Callable[[Site], Site]] = {
    "another dev image": lambda site: replace(site, image="slipway-dev:ba9876543210"),
    "another source": lambda site: replace(
        site, tree=replace(site.tree, source=site.tree.source.parent / "other")
    ),
    "another instruction set": lambda site: replace(
        site, tree=replace(site.tree, variants={"cpu": TABLE["noavx"]})
    ),
}


@pytest.mark.parametrize("change", AFRESH.values(), ids=AFRESH)
def test_what_cmake_reads_only_once_means_afresh(
    tmp_path: Path, change: Callable[[Site], Site]
) -> None:
    site = make_site(tmp_path)
    configured(site, {})
    assert mode(change(site), {}) == "fresh"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"toolchain": "x"}'])
def test_a_stamp_that_says_nothing_means_afresh(tmp_path: Path, text: str) -> None:
    site = make_site(tmp_path)
    configured(site, {})
    (site.build / ".slipway-configured").write_text(text)
    assert mode(site, {}) == "fresh"


# -- ccache


# -- reports

CTEST = """\
<testsuite name="Linux-c++" tests="4" failures="1" disabled="1" skipped="1">
 <testcase name="Linear.Works" classname="Linear.Works" time="0.1" status="run"/>
 <testcase name="Relu.Fails" classname="Relu.Fails" time="0.1" status="fail">
  <failure message=""/></testcase>
 <testcase name="Gpu.NotRun" classname="Gpu.NotRun" time="0" status="notrun">
  <skipped message="Unable to find executable"/></testcase>
 <testcase name="Off" classname="Off" time="0" status="disabled"/>
</testsuite>"""
PYTEST = """\
<testsuites><testsuite name="pytest" errors="1" failures="0" skipped="1" tests="3">
 <testcase classname="tests.test_a" name="test_x" time="0.1"/>
 <testcase classname="tests.test_a" name="test_y" time="0"><skipped type="s"/></testcase>
 <testcase classname="tests.test_a" name="test_z" time="0"><error message="e"/></testcase>
</testsuite></testsuites>"""


def test_a_test_that_did_not_run_is_not_counted_but_named(tmp_path: Path) -> None:
    (tmp_path / "c.xml").write_text(CTEST)
    (tmp_path / "p.xml").write_text(PYTEST)
    tested = read_reports({"CTest": tmp_path / "c.xml", "pytest": tmp_path / "p.xml"})
    assert (tested.executed, tested.failed) == (4, 2)
    assert tested.parts == "CTest 2, pytest 2"
    assert tested.not_run == ("Gpu.NotRun.Gpu.NotRun", "Off.Off", "tests.test_a.test_y")


WHY = "not run, no GPU: there is no NVIDIA driver on this machine (libcuda.so.1)"
CTEST_GPU = f"""\
<testsuite name="Linux-c++" tests="3" skipped="2">
 <testcase name="Linear.Works" classname="Linear.Works" time="0.1" status="run"/>
 <testcase name="Cuda.Conv2d" classname="Cuda.Conv2d" time="0" status="notrun">
  <skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>
  <system-out>Note: Google Test filter = Cuda.Conv2d
[ RUN      ] Cuda.Conv2d
../../../../examples/oar/tests/cpp/cuda_test.cc:26: Skipped
{WHY}

[  SKIPPED ] Cuda.Conv2d (0 ms)
</system-out></testcase>
 <testcase name="CudaErrors.None" classname="CudaErrors.None" time="0" status="notrun">
  <skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>
  <system-out>a line on no GPU that is not the reason
cuda_test.cc:9: Skipped
not run: this machine has a GPU

[  SKIPPED ] CudaErrors.None (0 ms)
</system-out></testcase>
</testsuite>"""
PYTEST_GPU = f"""\
<testsuites><testsuite name="pytest" skipped="3" tests="4">
 <testcase classname="t" name="runs" time="0.1"/>
 <testcase classname="t" name="relu" time="0"><skipped message="{WHY}"/></testcase>
 <testcase classname="t" name="torch" time="0"><skipped message="not run, no torch: x"/></testcase>
 <testcase classname="t" name="absent" time="0"><skipped message="this has a GPU"/></testcase>
</testsuite></testsuites>"""


def test_tests_skipped_for_want_of_a_gpu_are_told_by_their_reason(tmp_path: Path) -> None:
    (tmp_path / "c.xml").write_text(CTEST_GPU)
    (tmp_path / "p.xml").write_text(PYTEST_GPU)
    tested = read_reports({"CTest": tmp_path / "c.xml", "pytest": tmp_path / "p.xml"})
    assert tested.executed == 2
    assert len(tested.not_run) == 5
    assert tested.without_gpu == ("Cuda.Conv2d.Cuda.Conv2d", "t.relu")
    assert tested.summary == "2 tests executed (CTest 1, pytest 1), 2 GPU tests not run"


@pytest.mark.parametrize(
    ("reason", "lacks"),
    [
        ("no GPU", True),
        ("No CUDA devices found", True),
        ("needs an NVIDIA GPU", True),
        ("test requires a CUDA-capable GPU", True),
        ("CUDA not available", True),
        ("GPU is unavailable", True),
        ("cannot run without a GPU", True),
        ("not run: this machine has a GPU", False),
        ("not run: this torch has no CUDA", False),
        ("needs two GPU nodes", False),
        ("slow", False),
        ("", False),
    ],
)
def test_a_reason_lacks_a_gpu_when_it_says_so(reason: str, lacks: bool) -> None:
    assert bool(testing.NO_GPU.search(reason)) is lacks


def test_a_report_that_is_not_there_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.xml").write_text(PYTEST)
    tested = read_reports({"CTest": tmp_path / "c.xml", "pytest": tmp_path / "p.xml"})
    assert (tested.executed, tested.parts) == (2, "pytest 2")


@pytest.mark.parametrize("text", ["", PYTEST[:100]])
def test_a_report_that_is_cut_off_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.xml").write_text(text)
    with pytest.raises(SlipwayError, match=r"p\.xml") as caught:
        read_reports({"pytest": tmp_path / "p.xml"})
    assert caught.value.code == BAD_DATA


# -- links


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "tree"
    for name in ("tree/src", "tree/.git", "far/include/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "far" / "a.h").touch()
    (source / "src" / "a.cc").touch()
    return source


def test_links_that_stay_in_the_tree_need_no_mount(tree: Path) -> None:
    (tree / "link").symlink_to("src/a.cc")
    (tree / "dangling").symlink_to("src/gone.cc")
    assert links_out(tree) == ()


def test_links_to_the_image_s_own_directories_need_no_mount(tree: Path) -> None:
    (tree / "link").symlink_to("/usr/include")
    assert links_out(tree) == ()


def test_what_links_out_of_the_tree_lead_to_is_mounted(tree: Path, tmp_path: Path) -> None:
    (tree / "src" / "a.h").symlink_to("../../far/a.h")
    (tree / "include").symlink_to(tmp_path / "far" / "include")
    assert links_out(tree) == (tmp_path / "far" / "a.h", tmp_path / "far" / "include")


def test_a_link_below_another_is_mounted_with_it(tree: Path, tmp_path: Path) -> None:
    (tree / "deep").symlink_to(tmp_path / "far" / "include" / "deep")
    (tree / "far").symlink_to(tmp_path / "far")
    assert links_out(tree) == (tmp_path / "far",)


def test_git_s_own_links_are_left_alone(tree: Path, tmp_path: Path) -> None:
    (tree / ".git" / "link").symlink_to(tmp_path / "far")
    assert links_out(tree) == ()


def test_a_link_that_leads_nowhere_is_an_error(tree: Path, tmp_path: Path) -> None:
    (tree / "src" / "lost.h").symlink_to(tmp_path / "gone.h")
    with pytest.raises(SlipwayError, match=r"src/lost\.h leads to .*gone\.h") as caught:
        links_out(tree)
    assert caught.value.code == NO_INPUT


# -- jobs


def test_a_job_reads_the_source_and_writes_to_its_own_directory_only(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    job = site.job("build", ["x"], {"A": "1"})
    writable = {str(m.source) for m in job.mounts if not m.readonly}
    assert writable == {str(site.out), str(tmp_path / "cache" / "ccache")}
    readonly = {str(m.source) for m in job.mounts if m.readonly}
    assert readonly == {str(site.tree.source), str(tmp_path / "scripts")}
    assert job.command == [str(tmp_path / "scripts" / "build"), "x"]
    assert job.env == {"SOURCE_DATE_EPOCH": str(EPOCH), "A": "1"}
    assert not job.network
    assert job.alone
    assert job.workdir == str(site.out)


def test_two_variants_have_directories_and_names_of_their_own(tmp_path: Path) -> None:
    cpu, noavx = make_site(tmp_path), make_site(tmp_path, variant="noavx")
    assert cpu.out == tmp_path / "out" / "oar" / "cpu"
    assert noavx.out == tmp_path / "out" / "oar" / "noavx"
    assert cpu.job("build", [], {}).name != noavx.job("build", [], {}).name


def test_the_directories_are_made_before_docker_makes_them_as_root(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.prepare()
    assert site.build.is_dir()
    assert site.reports.is_dir()
    assert (tmp_path / "cache" / "ccache").is_dir()


def test_a_directory_of_another_owner_is_an_error_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path)
    site.prepare()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != site.out)
    with pytest.raises(SlipwayError, match=f"cannot write {site.out}: it belongs to uid") as caught:
        site.prepare()
    assert caught.value.code == CANNOT_CREATE
    assert caught.value.fix == (f'sudo chown -R "$(id -u):$(id -g)" {tmp_path / "out"}',)


# -- what a step depends on


def test_the_inputs_of_a_step_are_the_same_when_nothing_changed(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    assert inputs_of(site, "test") == inputs_of(replace(site), "test")


INPUTS: dict[str, Callable[[Site], Site | None]] = {
    "a source file": lambda site: (site.tree.source / "new.cc").touch(),
    "the build script": lambda site: touch(site.workshop.scripts / "build"),
    "the step's script": lambda site: touch(site.workshop.scripts / "test"),
    "the image": lambda site: replace(site, image="slipway-dev:ba9876543210"),
    "the variant": lambda site: replace(site, variant="noavx"),
    "the date": lambda site: with_version(site, epoch=1),
    "the version": lambda site: with_version(site, pep440="1.2.1"),
}


def touch(file: Path) -> None:
    file.write_text(f"{file.read_text()}changed\n")


def with_version(site: Site, **changes: str | int) -> Site:
    version = replace(site.tree.version, **changes)
    return replace(site, tree=replace(site.tree, version=version))


@pytest.mark.parametrize("change", INPUTS.values(), ids=INPUTS)
def test_the_inputs_of_a_step_change_with(
    tmp_path: Path, change: Callable[[Site], Site | None]
) -> None:
    site = make_site(tmp_path)
    before = inputs_of(site, "test")
    assert inputs_of(change(site) or site, "test") != before


def test_what_a_link_leads_to_is_an_input(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    (tmp_path / "far.h").write_text("old")
    (site.tree.source / "far.h").symlink_to(tmp_path / "far.h")
    site = replace(site, links=links_out(site.tree.source))
    before = inputs_of(site, "test")
    (tmp_path / "far.h").write_text("newer")
    assert inputs_of(site, "test") != before


def test_what_slipway_itself_makes_is_no_input(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site = replace(site, tree=replace(site.tree, source=tmp_path))  # the checkout builds itself
    before = inputs_of(site, "test")
    for name in ("out", "dist"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made").touch()
    os.utime(tmp_path)
    assert inputs_of(site, "test") == before


# -- testing


@dataclass
class Recorder:
    """A place where jobs do nothing but leave reports."""

    reports: Path
    status: int = 0
    ctest: str = CTEST
    pytest: str = PYTEST
    says: str = ""
    jobs: list[Job] = field(default_factory=list)

    def inside(self, path: Path) -> str:
        return str(path)

    def run(self, job: Job, image: str, heard: Heard | None = None) -> int:  # noqa: ARG002
        self.jobs.append(job)
        if heard is not None:
            heard.add(self.says.encode())
        self.reports.mkdir(parents=True, exist_ok=True)
        for name in ("ctest", "pytest"):
            if f"--{name}" in job.command and getattr(self, name):
                (self.reports / f"{name}.xml").write_text(getattr(self, name))
        return self.status


def recorded(
    tmp_path: Path, build: dict[str, str] | None = None, **recorder: int | str
) -> tuple[Site, Recorder]:
    test = {"pytest": ["tests"], "pythonpath": ["python", "with space"]}
    site = make_site(tmp_path, test=test, build=build or {})
    (site.tree.source / "tests").mkdir()
    (site.tree.source / "tests" / "test_a.py").touch()
    place = Recorder(site.reports, **recorder)  # type: ignore[arg-type]
    return replace(site, place=place), place


def test_both_kinds_of_tests_run_by_default(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    testing.test_built(site)
    (job,) = place.jobs
    source, build = site.tree.source, site.build
    assert job.command[1:] == [
        *(str(build), str(site.reports), str(source)),
        *("--ctest", "--pytest", f"--rootdir={source}"),
        *("--override-ini", f"pythonpath={build}/python '{build}/with space'", f"{source}/tests"),
    ]


def test_a_filter_for_one_kind_runs_that_kind_alone(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    testing.test_built(site, ctest_filter="Linear")
    testing.test_built(site, pytest_arguments=["-k", "x"])
    testing.test_built(site, ctest_filter="Linear", pytest_arguments=["-k", "x"])
    first, second, third = (job.command for job in place.jobs)
    assert first[4:] == ["--ctest", "Linear"]
    assert "--ctest" not in second
    assert second[-3:] == ["-k", "x", f"{site.tree.source}/tests"]
    assert third[4:7] == ["--ctest", "Linear", "--pytest"]


def test_a_test_named_relative_to_the_source_is_found_and_alone(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    testing.test_built(site, pytest_arguments=["tests/test_a.py::test_x", "-x"])
    assert place.jobs[0].command[-2:] == [f"{site.tree.source}/tests/test_a.py::test_x", "-x"]


def test_no_test_run_is_a_failure_even_when_the_status_is_0(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path, ctest="<testsuite/>", pytest="")
    with pytest.raises(SlipwayError, match=r"no test of oar 1\.2\.0 cpu was executed") as caught:
        testing.test_built(site)
    assert caught.value.code == BAD_DATA


def test_reports_of_an_earlier_run_do_not_count(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    testing.test_built(site)
    place.ctest = place.pytest = ""
    with pytest.raises(SlipwayError, match="no test"):
        testing.test_built(site)


def test_a_failing_test_ends_with_the_program_s_status_and_says_how_many(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path, status=8)
    with pytest.raises(SlipwayError, match=r"2 of 4 tests of oar 1\.2\.0 cpu failed") as caught:
        testing.test_built(site)
    assert caught.value.code == 8


def test_tests_that_did_not_run_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = recorded(tmp_path)
    testing.test_built(site)
    said = capsys.readouterr().out
    assert "not run: tests.test_a.test_y\n" in said
    assert "4 tests executed (CTest 2, pytest 2)" in said


NO_DRIVER = Answer(why="no NVIDIA driver on this machine")
HAS_GPU = Answer(("--gpus", "all"), "CDI", (Device("NVIDIA H100", 90),), demanded=True)


def test_tests_get_the_gpu_and_builds_do_not(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    site = replace(site, gpu=HAS_GPU)
    testing.test_built(site)
    builds.build(site)
    assert [job.gpu for job in place.jobs] == [("--gpus", "all"), ()]


def test_a_gpu_that_was_declined_is_hidden_in_place_too(tmp_path: Path) -> None:
    off = Answer(why="--gpu off", hidden=True)
    for host, hidden in ((True, ""), (False, None)):
        site = replace(make_site(tmp_path, host=host), gpu=off)
        job = site.given_gpu(site.job("test", [], {"A": "1"}))
        assert job.env.get("CUDA_VISIBLE_DEVICES") == hidden
        assert job.env["A"] == "1"


def test_gpu_tests_that_were_not_run_are_counted_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = recorded(tmp_path, ctest=CTEST_GPU, pytest=PYTEST_GPU)
    testing.test_built(replace(site, gpu=NO_DRIVER))
    said = capsys.readouterr().out
    assert "not run: t.relu\n" in said
    assert "2 GPU tests not run: no GPU here (no NVIDIA driver on this machine)\n" in said
    assert "2 tests executed (CTest 1, pytest 1), 2 GPU tests not run, " in said


def test_who_asked_for_a_gpu_fails_when_gpu_tests_were_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, place = recorded(tmp_path, ctest=CTEST_GPU, pytest=PYTEST_GPU)
    with pytest.raises(SlipwayError, match="asked for a GPU, and 2 GPU tests were") as caught:
        testing.test_built(replace(site, gpu=HAS_GPU))
    assert caught.value.code == BAD_DATA
    assert "they found no GPU, though one was given (GPU: NVIDIA H100" in capsys.readouterr().out
    testing.test_built(replace(site, gpu=replace(HAS_GPU, demanded=False)))
    place.ctest, place.pytest = CTEST, PYTEST  # skips of other kinds are none of its business
    testing.test_built(replace(site, gpu=HAS_GPU))


def test_a_build_that_fails_ends_with_the_compiler_s_status(tmp_path: Path) -> None:
    site, _ = recorded(tmp_path, status=2)
    with pytest.raises(SlipwayError, match=r"oar 1\.2\.0 cpu was not built") as caught:
        builds.build(site)
    assert caught.value.code == 2


def test_the_number_of_jobs_reaches_the_script(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    builds.build(site, jobs=3)
    builds.build(site)
    assert place.jobs[0].env["SLIPWAY_JOBS"] == "3"
    assert "SLIPWAY_JOBS" not in place.jobs[1].env


def test_why_is_asked_of_the_script_and_told_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, place = recorded(tmp_path)
    builds.build(site)
    assert "SLIPWAY_WHY" not in place.jobs[0].env
    assert "why " not in capsys.readouterr().out
    explained = site.build / ".slipway-explained"
    site.build.mkdir(parents=True, exist_ok=True)
    explained.write_text("ninja explain: command line changed for a.o\n")
    builds.build(site, why=True)
    assert place.jobs[1].env["SLIPWAY_WHY"] == "1"
    said = capsys.readouterr().out
    assert "why oar 1.2.0 cpu was done again:\n" in said
    assert "has not been configured yet" in said
    assert "the commands have changed, for a.o" in said


def test_why_is_told_of_a_build_that_fails_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = recorded(tmp_path, status=2)
    with pytest.raises(SlipwayError, match="was not built"):
        builds.build(site, why=True)
    assert "has not been configured yet" in capsys.readouterr().out


def test_why_names_the_files_of_a_copy_that_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = recorded(tmp_path, build={"system": "make"})
    site.prepare()
    env, options = compiler_environment(site), builds.build_options(site)
    _, stamp, _ = configure_mode(site, env, options)
    (site.build / ".slipway-configured").write_text(stamp)
    builds.build(site)
    (site.tree.source / "tests" / "test_a.py").write_text("x\n")
    builds.build(site, why=True)
    assert "  source file: tests/test_a.py has changed\n" in capsys.readouterr().out


# -- build systems


def of_system(tmp_path: Path, system: str, **build: object) -> tuple[Site, Recorder]:
    site = make_site(tmp_path, build={"system": system, **build})
    site.build.mkdir(parents=True)
    place = Recorder(site.reports)
    return replace(site, place=place), place


def test_all_but_cmake_build_a_copy_at_the_source_s_own_path(tmp_path: Path) -> None:
    for system in ("pep517", "make", "script"):
        more = {"commands": ["true"]} if system == "script" else {}
        site = make_site(tmp_path / system, build={"system": system, **more})
        assert site.mounts()[0] == Mount(site.copy, instead_of=site.tree.source)
        assert site.source_inside == str(site.tree.source)
    assert make_site(tmp_path).mounts()[0] == Mount(make_site(tmp_path).tree.source, readonly=True)


def test_in_place_the_copy_itself_is_built(tmp_path: Path) -> None:
    site = make_site(tmp_path, host=True, build={"system": "make", "directory": "src"})
    assert site.source_inside == str(site.copy)
    assert site.top_inside == f"{site.copy}/src"


def test_cmake_with_writable_gets_a_copy_too(tmp_path: Path) -> None:
    assert make_site(tmp_path, build={"writable": True}).copied


def test_make_is_told_its_variables_and_targets(tmp_path: Path) -> None:
    site, place = of_system(tmp_path, "make", options={"SIMD": "{isa}"}, targets=["lib", "tools"])
    builds.build(site)
    command = list(place.jobs[0].command)[1:]
    assert command[:2] == ["make", "fresh"]
    assert command[3:] == [
        *(str(site.tree.source), str(site.build)),
        "SIMD=x86-64-v3",
        "lib",
        "tools",
    ]
    assert (site.copy / "CMakeLists.txt").is_file()


def test_a_script_gets_its_lines_and_the_options_as_variables(tmp_path: Path) -> None:
    site, place = of_system(tmp_path, "script", commands=["a b", "c"], options={"V": "{variant}"})
    builds.build(site)
    assert list(place.jobs[0].command)[-2:] == ["a b", "c"]
    assert place.jobs[0].env["V"] == "cpu"


@pytest.mark.parametrize(
    ("backend", "key"), [("scikit_build_core.build", "build-dir"), ("mesonpy", "build-dir")]
)
def test_a_known_backend_is_told_where_to_build(tmp_path: Path, backend: str, key: str) -> None:
    site, _ = of_system(tmp_path, "pep517")
    (site.tree.source / "pyproject.toml").write_text(
        f'[build-system]\nbuild-backend = "{backend}"\n'
    )
    assert builds.backend_settings(site)[key] == f"{site.build}/native"


def test_an_unknown_backend_is_told_nothing(tmp_path: Path) -> None:
    site, _ = of_system(tmp_path, "pep517")
    assert builds.backend_settings(site) == {}
    (site.tree.source / "pyproject.toml").write_text('[build-system]\nbuild-backend = "flit"\n')
    assert builds.backend_settings(site) == {}


def test_another_option_means_afresh_where_the_build_system_cannot_tell(tmp_path: Path) -> None:
    site, _ = of_system(tmp_path, "make")
    env = compiler_environment(site)
    _, stamp, _ = configure_mode(site, env, {"A": "1"})
    (site.build / ".slipway-configured").write_text(stamp)
    assert configure_mode(site, env, {"A": "1"})[0] == "no"
    assert configure_mode(site, env, {"A": "2"})[0] == "fresh"


def test_only_configuring_has_the_network_with_cmake(tmp_path: Path) -> None:
    site, place = of_system(tmp_path, "cmake", network=True, options={"A": "1"})
    builds.build(site)
    first, second = place.jobs
    assert (first.network, list(first.command)[2], first.command[-1]) == (
        True,
        "configure",
        "-DA=1",
    )
    assert (second.network, list(second.command)[2]) == (False, "no")


def test_without_that_key_nothing_has_the_network(tmp_path: Path) -> None:
    for system in ("cmake", "make", "pep517"):
        site, place = of_system(tmp_path / system, system)
        builds.build(site)
        assert [job.network for job in place.jobs] == [False]


def test_a_prebuilt_wheel_starts_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site, place = of_system(tmp_path, "cmake")
    wheel = tmp_path / "oar-1.2.0-py3-none-any.whl"
    builds.build(replace(site, tree=replace(site.tree, wheel=wheel)))
    assert place.jobs == []
    assert (
        "nothing to compile, oar-1.2.0-py3-none-any.whl is a prebuilt wheel"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("touch: cannot touch 'x': Read-only file system", "{writable: true}"),
        ("fatal: unable to access: Could not resolve host: github.com", "{network: true}"),
        ("curl: (6) Could not resolve host: x", "{network: true}"),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "{network: true}"),
        ("ERROR: Some build dependencies for file:///x are missing: 'meson'.", "build.pip"),
        ("a.c:1:10: fatal error: zlib.h: No such file or directory", "build.apt"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "--jobs 1"),
    ],
)
def test_what_a_tool_says_of_our_rules_is_explained(tmp_path: Path, said: str, fix: str) -> None:
    site, place = of_system(tmp_path, "make")
    place.status, place.says = 2, f"before\n{said}\nafter\n"
    with pytest.raises(SlipwayError) as caught:
        builds.build(site)
    assert said in caught.value.cause
    assert "before" not in caught.value.cause
    assert fix in caught.value.fix[0]
    assert caught.value.code == 2


def test_what_says_nothing_known_is_left_to_speak_for_itself() -> None:
    assert explain("error: expected ';'", BUILDING) == ("", "")


def test_commands_are_tests(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    project = replace(
        site.tree.project, test=replace(site.tree.project.test, commands=("make check",))
    )
    testing.test_built(replace(site, tree=replace(site.tree, project=project)))
    words = list(place.jobs[0].command)
    assert words[words.index("--ctest") :][:4] == ["--ctest", "--command", "make check", "--pytest"]


def test_a_project_that_names_no_tests_is_told_so(tmp_path: Path) -> None:
    site = make_site(tmp_path, build={"system": "make"}, test={"installed": ["tests"]})
    with pytest.raises(SlipwayError, match="names no tests that run where oar is built") as caught:
        testing.test_built(site)
    assert caught.value.code == BAD_DATA
    assert "--image prod" in caught.value.fix[0]


def test_a_checkout_inside_the_library_s_tree_is_no_source(tmp_path: Path) -> None:
    site = make_site(tmp_path / "slipway")
    inside = builds.not_source(site.workshop, tmp_path)
    assert inside == (tmp_path / "slipway",)
    assert builds.not_source(site.workshop, site.tree.source) == (
        site.workshop.out,
        site.workshop.dist,
    )
    (site.workshop.root / "link").symlink_to(tmp_path / "nowhere")
    assert links_out(tmp_path, inside) == ()


# -- how the tests are run where a tree was built


def test_sanitizers_are_compiled_in_and_have_a_directory_beside(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    how = testing.asked("undefined,address", 1, failed=False)
    other = how.on(site)
    assert other.out.name == "cpu.address-undefined"
    assert other.title == "oar 1.2.0 cpu (address, undefined)"
    env = builds.compiler_environment(other)
    assert "-fsanitize=address,undefined -fno-sanitize-recover=all" in env["CXXFLAGS"]
    assert env["LDFLAGS"].endswith("-fsanitize=address,undefined")
    assert "-fsanitize" not in str(builds.compiler_environment(site))
    assert testing.asked("", 1, failed=False).on(site) is site


def test_tests_are_told_of_the_sanitizers(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    testing.test_built(site)
    other = replace(site, sanitize=("address", "undefined"))
    place.reports = other.reports
    testing.test_built(other)
    first, second = (job.env for job in place.jobs)
    assert "SLIPWAY_SANITIZE" not in first
    assert second["SLIPWAY_SANITIZE"] == "address undefined"


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        (("adress", 1), {"failed": False}, "no sanitizer 'adress'\n  did you mean 'address'?"),
        (("thread", 1), {"failed": False}, "known: address, leak, undefined"),
        (("", 0), {"failed": False}, "--repeat 0 would run no test"),
        (("", 2), {"failed": False, "elsewhere": "--image"}, "--repeat and --image do not go"),
        (("address", 1), {"failed": False, "elsewhere": "--cpu"}, "--sanitize and --cpu"),
        (("", 1), {"failed": True, "elsewhere": "--cpu"}, "--failed and --cpu"),
        (("", 1), {"failed": True, "filtered": True}, "--failed and another choice of tests"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    arguments: tuple[str, int], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(SlipwayError) as caught:
        testing.asked(*arguments, **more)
    assert words in str(caught.value.message)
    assert caught.value.code == USAGE


FAILED = """<testsuites><testsuite name="pytest">
<testcase classname="tests.test_a" name="test_x[a b]" file="tests/test_a.py"><failure/>
</testcase>
<testcase classname="tests.test_a.TestB" name="test_y" file="tests/test_a.py"><error/></testcase>
<testcase classname="tests.test_a" name="test_z" file="tests/test_a.py"/>
</testsuite></testsuites>"""


def test_what_failed_last_time_is_named_as_pytest_takes_it(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.xml" for name in ("CTest", "pytest")}
    files["CTest"].write_text('<testsuite><testcase name="a"><failure/></testcase></testsuite>')
    files["pytest"].write_text(FAILED)
    assert testing.failed_before(files) == {
        "CTest": ["a"],
        "pytest": ["tests/test_a.py::test_x[a b]", "tests/test_a.py::TestB::test_y"],
    }
    files["CTest"].write_text('<testsuite><testcase name="a"/></testsuite>')
    files["pytest"].write_text(
        '<testsuite><testcase classname="" name="x"><error/></testcase></testsuite>'
    )
    assert testing.failed_before(files) == {"pytest": []}
    files["pytest"].write_text("<cut off")
    assert testing.failed_before({**files, "gone": tmp_path / "gone.xml"}) == {}


def test_only_what_failed_is_run_again(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    source = site.tree.source
    testing.test_built(site, failed={"pytest": ["tests/test_a.py::test_x"]})
    testing.test_built(site, failed={"CTest": ["a"]})
    testing.test_built(site, failed={"pytest": []})
    first, second, third = (job.command for job in place.jobs)
    assert "--ctest" not in first
    assert first[-1] == f"{source}/tests/test_a.py::test_x"
    assert second[4:] == ["--ctest", "--rerun-failed"]
    assert third[-1] == f"{source}/tests"


def test_tests_are_repeated_until_one_fails(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    testing.test(site, "", "", "", [], testing.asked("", 3, failed=False))
    runs = [job for job in place.jobs if job.name.startswith("test-")]
    assert len(runs) == 3


def test_where_nothing_failed_last_time_nothing_is_run(tmp_path: Path) -> None:
    site, place = recorded(tmp_path, pytest=PYTEST, ctest="<testsuite/>")
    with pytest.raises(
        SlipwayError, match="no test of oar 1\\.2\\.0 cpu failed last time"
    ) as caught:
        testing.test(site, "", "", "", [], testing.asked("", 1, failed=True))
    assert caught.value.code == BAD_DATA
    assert not [job for job in place.jobs if job.name.startswith("test-")]


def test_lines_are_counted_in_a_directory_beside_by_their_own_names(tmp_path: Path) -> None:
    site = replace(make_site(tmp_path), coverage=True)
    assert site.out.name == "cpu.coverage"
    assert replace(site, sanitize=("address",)).out.name == "cpu.address-coverage"
    env = builds.compiler_environment(site)
    assert "--coverage" in env["CXXFLAGS"]
    assert "--coverage" in env["LDFLAGS"]
    assert "prefix-map" not in env["CXXFLAGS"]
    assert env["CCACHE_DISABLE"] == "1"


def test_python_s_lines_are_counted_where_it_is_imported_from(tmp_path: Path) -> None:
    site, place = recorded(tmp_path)
    other = replace(site, coverage=True)
    place.reports = other.reports
    testing.test_built(other)
    (job,) = place.jobs
    told = Path(job.env["SLIPWAY_COVERAGE"]).read_text()
    assert told.endswith(f'source = ["{other.build}/python", "{other.build}/with space"]\n')


def test_a_directory_with_a_comma_in_its_name_is_one_directory() -> None:
    told = tomllib.loads(coverage.settings(['/Größe, "a": b/python', "/x"]))
    assert told["tool"]["coverage"]["run"]["source"] == ['/Größe, "a": b/python', "/x"]


def test_the_report_counts_lines_of_both_languages(tmp_path: Path) -> None:
    assert coverage.read(tmp_path) == []
    (tmp_path / "cxx.json").write_text('{"line_covered": 7, "line_total": 8}')
    totals = '{"totals": {"covered_lines": 1, "num_statements": 3}}'
    (tmp_path / "python.json").write_text(totals)
    found = coverage.read(tmp_path)
    assert [one.percent for one in found] == ["87.5 %", "33.3 %"]
    page = coverage.page("What <oar> reaches", found)
    assert "What &lt;oar&gt; reaches" in page
    assert '<a href="cxx/index.html">C and C++</a>' in page
    assert '<a href="python/index.html">Python</a>' in page


def test_coverage_needs_containers(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    with pytest.raises(SlipwayError, match="--coverage needs a container engine"):
        testing.check_flags(workshop, "host", "", "", coverage=True)
    with pytest.raises(SlipwayError, match="--coverage and --image do not go together"):
        testing.check_flags(workshop, "docker", "prod", "", coverage=True)
    assert testing.check_flags(workshop, "docker", "", "", coverage=True).coverage
