"""Which way containers get a GPU, what is missing where none does, and what is remembered."""

from __future__ import annotations

import ctypes
import io
import json
import runpy
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import engine, gpu, images, processes, production, variants
from slipway.doctor import gpu_finding
from slipway.engine import Docker, InPlace, Job
from slipway.errors import UNAVAILABLE, USAGE, SlipwayError
from slipway.gpu import (
    CDI,
    IN_PLACE,
    NOT_ASKED,
    RUNTIME,
    Answer,
    Device,
    Facts,
    Lack,
    lacking,
    read_probe,
    refusal,
    suits,
    wanted,
    ways,
)
from slipway.settings import ROOT, Workshop
from slipway.variants import LEVEL_FLAGS, TABLE, Variant
from tests.unit.fakes import make_tree, make_workshop

# What engines answer to /info, in the fields that matter here.
RUNC = {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}}
OLD = {"ID": "VTKJ:GCXZ", "ServerVersion": "20.10.24+dfsg1", "Runtimes": RUNC}
OLD_NVIDIA = {**OLD, "Runtimes": {**RUNC, "nvidia": {"path": "nvidia-container-runtime"}}}
DIRECTORIES = ["/etc/cdi", "/var/run/cdi"]
NEW = {"ID": "0b9c", "ServerVersion": "27.5.1", "Runtimes": RUNC, "CDISpecDirs": DIRECTORIES}
NEW_OFF = {**NEW, "ServerVersion": "25.0.3", "CDISpecDirs": []}
NEWEST = {
    **NEW,
    "ServerVersion": "28.3.0",
    "DiscoveredDevices": [
        {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
        {"Source": "cdi", "ID": "nvidia.com/gpu=all"},
    ],
}
LINE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15"
H100 = Device("NVIDIA H100 80GB HBM3", 90)
T4 = Device("Tesla T4", 75)
FOUND = json.dumps({"devices": [[H100.name, 90]]})


def facts(info: dict[str, Any] | None = None, *, driver: str = LINE, **parts: Any) -> Facts:
    values: dict[str, Any] = {"contained": True, "info": info or OLD, "driver": driver, **parts}
    return Facts(**values)


# -- ways


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (facts(OLD), ()),
        (facts(OLD, toolkit=True, hook=True), (RUNTIME,)),
        (facts(OLD_NVIDIA), (RUNTIME,)),
        (facts(OLD_NVIDIA, driver=""), ()),
        (facts(OLD, spec=True), ()),  # a specification that this engine does not read
        (facts(NEW), ()),
        (facts(NEW, spec=True), (CDI,)),
        (facts(NEW, spec=True, hook=True), (CDI, RUNTIME)),
        (facts(NEW_OFF, spec=True), ()),
        (facts(NEW_OFF, spec=True, hook=True), (RUNTIME,)),
        (facts(NEWEST), (CDI,)),
        (facts({**NEWEST, "DiscoveredDevices": [{"ID": "vendor.com/nic=0"}]}), ()),
        (Facts(contained=False), (IN_PLACE,)),
    ],
)
def test_the_ways_are_those_that_engine_and_files_offer(
    seen: Facts, found: tuple[gpu.Way, ...]
) -> None:
    assert ways(seen) == found


@pytest.mark.parametrize(
    ("info", "found"), [(OLD, (RUNTIME,)), (NEW, (CDI, RUNTIME)), (OLD_NVIDIA, (RUNTIME,))]
)
def test_of_a_remote_engine_s_machine_our_files_say_nothing(
    info: dict[str, Any], found: tuple[gpu.Way, ...]
) -> None:
    assert ways(facts(info, remote=True, driver="")) == found


def test_the_arguments_are_those_of_docker_run() -> None:
    assert CDI.arguments == ("--device", "nvidia.com/gpu=all")
    assert RUNTIME.arguments[:2] == ("--gpus", "all")
    assert RUNTIME.arguments[2:] == ("--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility")


# -- what is missing


def parts(seen: Facts) -> list[str]:
    return [lack.part for lack in lacking(seen)]


def test_each_thing_that_is_missing_is_named_with_its_fix() -> None:
    assert parts(facts(OLD, driver="")) == ["driver", "toolkit"]
    assert parts(facts(OLD_NVIDIA, driver="")) == ["driver"]
    assert parts(facts(OLD)) == ["toolkit"]
    assert parts(facts(OLD, toolkit=True)) == ["engine support"]
    assert parts(facts(NEW, toolkit=True)) == ["engine support"]
    assert parts(facts(NEW_OFF, toolkit=True)) == ["engine support"]
    assert parts(facts(NEWEST)) == []
    assert parts(facts(OLD_NVIDIA)) == []
    assert parts(Facts(contained=False)) == ["driver"]


def test_an_engine_is_told_the_fix_that_it_can_use() -> None:
    (neither,) = lacking(facts(OLD, toolkit=True))
    assert neither.why == "engine 20.10.24+dfsg1 has neither CDI nor the nvidia runtime"
    assert "nvidia-ctk runtime configure" in neither.fix[0]
    (unspecified,) = lacking(facts(NEW, toolkit=True))
    assert "no specification names nvidia.com/gpu" in unspecified.why
    assert "nvidia-ctk cdi generate" in unspecified.fix[0]


def test_a_machine_without_a_card_is_not_only_told_to_install_a_driver() -> None:
    (lack,) = lacking(facts(OLD_NVIDIA, driver="", card=False))
    assert lack.why.endswith("and no NVIDIA device")
    assert "a machine with an NVIDIA GPU" in lack.fix[0]
    (lack,) = lacking(facts(OLD_NVIDIA, driver="", card=True))
    assert lack.why == "no NVIDIA driver on this machine"
    assert "nvidia-driver" in lack.fix[0]


def test_the_error_of_on_names_the_parts_and_every_fix_once() -> None:
    error = refusal(lacking(facts(OLD, driver="")))
    assert error.code == UNAVAILABLE
    assert error.what.endswith("what is missing is driver and toolkit")
    assert error.cause.splitlines()[0].startswith("driver: no NVIDIA driver")
    assert error.cause.splitlines()[1].startswith("toolkit: no nvidia-container-toolkit")
    assert len(set(error.fix)) == len(error.fix) >= 4


# -- the probe's words

NO_HOOK = (
    'docker: Error response from daemon: could not select device driver "" with capabilities: '
)
SEE_HELP = "\n\nRun 'docker run --help' for more information\n"
REFUSED = [
    (f"{NO_HOOK}[[gpu]]{SEE_HELP}", "toolkit", "nvidia-container-runtime-hook"),
    (
        (
            'docker: Error response from daemon: could not select device driver "cdi" with '
            f"capabilities: []{SEE_HELP}"
        ),
        "engine support",
        "no CDI",
    ),
    (
        (
            "docker: Error response from daemon: CDI device injection failed: "
            f"unresolvable CDI devices nvidia.com/gpu=all{SEE_HELP}"
        ),
        "engine support",
        "no CDI specification",
    ),
    (
        (
            "docker: Error response from daemon: failed to create task for container: ... "
            "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown."
        ),
        "driver",
        "not loaded",
    ),
    (
        (
            "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: "
            "cannot open shared object file: no such file or directory: unknown."
        ),
        "driver",
        "finds no NVIDIA driver",
    ),
    (f"docker: something new{SEE_HELP}", "engine support", "status 125: docker: something new"),
]


@pytest.mark.parametrize(("words", "part", "why"), REFUSED)
def test_docker_s_refusal_names_what_is_missing(words: str, part: str, why: str) -> None:
    devices, lack = read_probe(RUNTIME, 125, "", words)
    assert devices == ()
    assert lack
    assert lack.part == part
    assert why in lack.why


def test_devices_are_read_from_the_last_line() -> None:
    assert read_probe(CDI, 0, f"== a banner ==\n{FOUND}\n", "") == ((H100,), None)


@pytest.mark.parametrize("said", ["", "{}", "[]", '{"devices": []}', "no JSON", '{"devices": [1]}'])
def test_a_probe_that_names_no_gpu_has_found_none(said: str) -> None:
    devices, lack = read_probe(CDI, 0, said, "")
    assert devices == ()
    assert lack
    assert lack.why == "CDI: status 0: it said nothing"


def test_a_driver_that_refuses_is_quoted() -> None:
    why = "the driver refuses: cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
    assert read_probe(CDI, 0, json.dumps({"why": why}), "") == (
        (),
        Lack("driver", why, (gpu.FIX_PROBE,)),
    )


def test_a_driver_that_hangs_is_no_gpu() -> None:
    _, lack = read_probe(IN_PLACE, processes.NO_ANSWER, "", "'env' gave no answer within 60 s")
    assert lack
    assert "gave no answer within 60 s" in lack.why


# -- the probe itself, with a driver made of Python


def pointee(reference: Any) -> Any:
    """What ctypes.byref was given."""
    return getattr(reference, "_obj")  # noqa: B009  # ctypes has no public name for it


class Driver:
    """libcuda of a machine with these GPUs; ``init`` is what cuInit returns."""

    def __init__(self, devices: list[Device], init: int = 0) -> None:
        self.devices, self.init = devices, init

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.init

    def cuGetErrorName(self, status: int, text: Any) -> int:  # noqa: N802
        if status == 100:
            pointee(text).value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        pointee(count).value = len(self.devices)
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        pointee(device).value = number + 40
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = self.devices[device.value - 40].name.encode()[: size - 1]
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        capability = self.devices[device.value - 40].capability
        pointee(value).value = {75: capability // 10, 76: capability % 10}[attribute]
        return 0


def probed(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> Any:
    def load(name: str) -> Driver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    with redirect_stdout(io.StringIO()) as said:
        runpy.run_path(str(ROOT / "scripts" / "gpu-probe"))
    return json.loads(said.getvalue())


def test_the_probe_lists_what_the_driver_has(monkeypatch: pytest.MonkeyPatch) -> None:
    said = probed(monkeypatch, Driver([H100, T4]))
    assert said == {"devices": [[H100.name, 90], [T4.name, 75]]}


def test_the_probe_says_why_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probed(monkeypatch, Driver([])) == {"why": "the driver lists no GPU"}
    refused = {"why": "the driver refuses: cuInit: CUDA_ERROR_NO_DEVICE"}
    assert probed(monkeypatch, Driver([H100], init=100)) == refused
    unnamed = {"why": "the driver refuses: cuInit: error 999"}
    assert probed(monkeypatch, Driver([H100], init=999)) == unnamed
    assert probed(monkeypatch, None)["why"].startswith("no libcuda: ")


# -- sentences


def test_the_reason_is_one_sentence() -> None:
    assert Answer(way="CDI", devices=(H100,)).sentence == f"GPU: {H100.name} (sm_90) by CDI"
    several = Answer(way="the nvidia runtime", devices=(T4, H100, T4))
    assert several.sentence == (
        f"GPU: 2 x Tesla T4 (sm_75), {H100.name} (sm_90) by the nvidia runtime"
    )
    assert Answer(why="no NVIDIA driver").sentence == "no GPU: no NVIDIA driver"


def test_a_gpu_that_runs_none_of_the_variant_s_code_is_none_for_it() -> None:
    old = Answer(CDI.arguments, "CDI", (T4,))
    assert suits(old, TABLE["cpu"]) == old
    answer = suits(old, TABLE["gpu"])
    assert answer.devices == ()
    assert answer.arguments == ()
    assert answer.sentence == (
        "no GPU: Tesla T4 is sm_75, and the variant's code is for sm_80, sm_90"
    )
    assert "add sm_75" in answer.lacks[0].fix[0]
    mixed = replace(old, devices=(T4, H100))
    assert suits(mixed, TABLE["gpu"]) == mixed


# -- the whole decision, with an engine made of Python


class Machine:
    """What look-ups find, and what a probe says; counts the probes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.workshop = make_workshop(tmp_path)
        self.place: Docker | InPlace = Docker(self.workshop)
        self.facts = facts(NEW, spec=True, hook=True)
        self.answers = {CDI.arguments: (0, FOUND, "")}
        self.tried: list[tuple[str, ...]] = []
        self.said: list[str] = []
        self.dev = ""
        monkeypatch.setattr(gpu, "look", lambda _: self.facts)
        monkeypatch.setattr(images, "look_for_dev", lambda _: self.dev)
        monkeypatch.setattr(Docker, "look", self.run)
        monkeypatch.setattr(processes, "look", self.start)

    def run(self, job: Job, image: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        assert image == "slipway-dev:1"
        assert not job.network
        assert timeout == gpu.PROBE_S
        self.tried.append(job.gpu)
        status, out, err = self.answers.get(job.gpu, (125, "", REFUSED[0][0]))
        return subprocess.CompletedProcess([], status, out, err)

    def start(self, argv: list[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
        assert argv[0] == "env"
        assert timeout == gpu.PROBE_S
        self.tried.append(())
        status, out, err = self.answers.get((), (1, "", ""))
        return subprocess.CompletedProcess(argv, status, out, err)

    def decide(self, mode: str, row: Variant = TABLE["gpu"]) -> Answer:
        return gpu.decide(self.workshop, mode, self.place, "slipway-dev:1", row, self.said.append)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_auto_takes_the_first_way_that_works_and_remembers_it(machine: Machine) -> None:
    answer = machine.decide("auto")
    assert answer == Answer(CDI.arguments, "CDI", (H100,))
    assert machine.decide("auto") == answer
    assert machine.tried == [CDI.arguments]
    assert machine.said == [answer.sentence] * 2


def test_where_cdi_does_not_work_the_runtime_is_tried(machine: Machine) -> None:
    machine.answers = {RUNTIME.arguments: (0, FOUND, "")}
    answer = machine.decide("auto")
    assert (answer.arguments, answer.way) == (RUNTIME.arguments, RUNTIME.name)
    assert machine.tried == [CDI.arguments, RUNTIME.arguments]


def test_no_gpu_is_remembered_too_but_who_insists_asks_again(machine: Machine) -> None:
    machine.answers = {}
    assert machine.decide("auto").devices == ()
    assert machine.decide("auto").devices == ()
    assert len(machine.tried) == 2
    with pytest.raises(SlipwayError, match="no GPU, and --gpu on asks for one"):
        machine.decide("on")
    assert len(machine.tried) == 4
    machine.answers = {CDI.arguments: (0, FOUND, "")}
    assert machine.decide("on").demanded
    assert machine.decide("auto").devices == (H100,)


@pytest.mark.parametrize(
    "change",
    [
        {"driver": LINE.replace("570", "575")},
        {"info": {**NEW, "ServerVersion": "28.0.0"}},
        {"info": {**NEW, "ID": "another"}},
        {"spec": False},
    ],
)
def test_what_may_change_the_answer_makes_it_ask_again(
    machine: Machine, change: dict[str, Any]
) -> None:
    machine.answers[RUNTIME.arguments] = (0, FOUND, "")
    machine.decide("auto")
    machine.facts = replace(machine.facts, **change)
    machine.decide("auto")
    assert len(machine.tried) == 2


def test_a_reboot_and_another_engine_make_it_ask_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.decide("auto")
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    machine.decide("auto")
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(gpu, "BOOT", tmp_path / "boot_id")
    machine.decide("auto")
    assert len(machine.tried) == 3


def test_a_memory_that_is_broken_is_forgotten(machine: Machine) -> None:
    answer = machine.decide("auto")
    file, _ = gpu.memory(machine.workshop, machine.facts)
    for text in ("{", file.read_text().replace("90", '"ninety"')):
        file.write_text(text)
        assert machine.decide("auto") == answer
    assert len(machine.tried) == 3


def test_without_a_driver_nothing_is_started(machine: Machine) -> None:
    machine.facts = facts(OLD, driver="")
    answer = machine.decide("auto")
    assert machine.said == ["no GPU: no NVIDIA driver on this machine, and no NVIDIA device"]
    assert answer.arguments == ()
    assert machine.tried == []


def test_who_has_no_cuda_hears_nothing_of_gpus(machine: Machine) -> None:
    assert machine.decide("auto", TABLE["cpu"]) is NOT_ASKED
    assert machine.decide("off", TABLE["cpu"]).arguments == ()
    assert machine.tried == []
    assert machine.said == []


def test_on_gives_a_variant_without_cuda_the_gpu_too(machine: Machine) -> None:
    assert machine.decide("on", TABLE["cpu"]).arguments == CDI.arguments


def test_off_never_asks(machine: Machine) -> None:
    answer = machine.decide("off")
    assert answer.hidden
    assert answer.arguments == ()
    assert machine.tried == []
    assert machine.said == []


def test_on_refuses_a_gpu_that_the_variant_has_no_code_for(machine: Machine) -> None:
    machine.answers = {CDI.arguments: (0, json.dumps({"devices": [[T4.name, 75]]}), "")}
    with pytest.raises(SlipwayError) as caught:
        machine.decide("on")
    assert "sm_75" in caught.value.cause
    assert machine.decide("on", TABLE["cpu"]).devices == (T4,)


def test_dry_starts_nothing_and_shows_the_first_way(machine: Machine) -> None:
    machine.workshop = replace(machine.workshop, dry=True)
    assert machine.decide("on").arguments == CDI.arguments
    assert machine.tried == []
    assert machine.said == []
    assert not machine.workshop.out.exists()


def test_in_place_the_driver_is_asked_itself(machine: Machine) -> None:
    machine.place, machine.facts = InPlace(machine.workshop), Facts(contained=False)
    machine.answers = {(): (0, FOUND, "")}
    answer = machine.decide("on")
    assert answer.arguments == ()
    assert answer.sentence.endswith("by libcuda on this machine")
    machine.answers = {(): (0, '{"why": "no libcuda: not found"}', "")}
    (machine.workshop.out / ".run" / "gpu-host.json").unlink()
    assert machine.decide("auto").why.startswith("no NVIDIA driver on this machine")
    machine.facts = Facts(contained=False, driver=LINE)
    assert "a container without a GPU?" in machine.decide("auto").why
    machine.answers = {(): (processes.NO_ANSWER, "", "'env' gave no answer within 60 s")}
    with pytest.raises(SlipwayError, match="missing is driver") as caught:
        machine.decide("on")
    assert "gave no answer" in caught.value.cause


def test_on_is_refused_before_anything_is_made_where_that_can_be_seen(machine: Machine) -> None:
    gpu.demand(machine.workshop, "on", machine.place)
    machine.facts = facts(OLD, driver="")
    gpu.demand(machine.workshop, "auto", machine.place)
    gpu.demand(machine.workshop, "off", machine.place)
    with pytest.raises(SlipwayError, match="driver and toolkit"):
        gpu.demand(machine.workshop, "on", machine.place)
    gpu.demand(replace(machine.workshop, dry=True), "on", machine.place)
    machine.facts = facts(OLD, driver="", remote=True)
    gpu.demand(machine.workshop, "on", machine.place)
    assert machine.tried == []
    machine.dev = "slipway-dev:1"  # an image to try it in is here
    with pytest.raises(SlipwayError, match="missing is toolkit"):
        gpu.demand(machine.workshop, "on", machine.place)
    assert machine.tried == [RUNTIME.arguments]


def test_on_in_place_asks_at_once(machine: Machine) -> None:
    machine.place, machine.facts = InPlace(machine.workshop), Facts(contained=False)
    machine.answers = {(): (0, '{"why": "no libcuda: not found"}', "")}
    with pytest.raises(SlipwayError, match="what is missing is driver"):
        gpu.demand(machine.workshop, "on", machine.place)
    machine.answers = {(): (0, FOUND, "")}
    gpu.demand(machine.workshop, "on", machine.place)
    assert machine.decide("on").devices == (H100,)
    assert len(machine.tried) == 2


# -- the flag, and files


def test_the_flag_beats_the_setting(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, gpu="off")
    assert wanted(workshop, "") == "off"
    assert wanted(workshop, "on") == "on"
    with pytest.raises(SlipwayError, match="no GPU mode 'onn'") as caught:
        wanted(workshop, "onn")
    assert caught.value.code == USAGE
    assert caught.value.cause == "did you mean 'on'? known: auto, off, on"


def test_a_specification_counts_that_names_nvidia_s_gpus(tmp_path: Path) -> None:
    directory = tmp_path / "cdi"
    assert not gpu.has_spec([directory])
    directory.mkdir()
    (directory / "nic.yaml").write_text("kind: vendor.com/nic\n")
    (directory / "nvidia.yaml.bak").write_text("kind: nvidia.com/gpu\n")
    assert not gpu.has_spec([directory])
    (directory / "nvidia.yaml").write_text("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n")
    assert gpu.has_spec([tmp_path / "none", directory])


@pytest.mark.parametrize("contained", [True, False])
def test_the_machine_s_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contained: bool
) -> None:
    for name in ("DRIVER", "WSL", "PCI"):
        monkeypatch.setattr(gpu, name, tmp_path / name)
    monkeypatch.setattr(engine, "info", lambda: {**NEW, "CDISpecDirs": [str(tmp_path / "cdi")]})
    monkeypatch.setattr(engine, "local_socket", lambda: "/var/run/docker.sock")
    here: set[str] = set()
    monkeypatch.setattr("shutil.which", lambda tool, **_: tool if tool in here else None)
    workshop = make_workshop(tmp_path)
    place = Docker(workshop) if contained else InPlace(workshop)
    seen = gpu.look(place)
    assert (seen.contained, seen.driver, seen.card) == (contained, "", False)
    assert (seen.toolkit, seen.hook, seen.spec, seen.remote) == (False,) * 4
    for number, vendor in enumerate(("0x8086", "0x10de")):
        (tmp_path / "PCI" / f"{number}").mkdir(parents=True)
        (tmp_path / "PCI" / f"{number}" / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "WSL").touch()
    assert gpu.look(place).driver == "WSL"
    (tmp_path / "DRIVER").write_text(f"{LINE}\nGCC version:  gcc version 12\n")
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "nvidia.json").write_text('{"kind": "nvidia.com/gpu"}')
    here |= {"nvidia-ctk", "nvidia-container-runtime-hook"}
    seen = gpu.look(place)
    assert (seen.driver, seen.card) == (LINE, True)
    assert (seen.toolkit, seen.hook, seen.spec) == (contained,) * 3


# -- which production image is run


def made(names: str) -> dict[str, str]:
    return {name: f"{name}:1" for name in names.split()}


@pytest.mark.parametrize(
    ("wanted_variant", "mode", "here", "able"),
    [
        ("", "auto", "cpu gpu", ["cpu", "gpu"]),
        ("", "on", "cpu gpu gpu-noavx", ["gpu", "gpu-noavx"]),
        ("cpu", "on", "cpu gpu", ["cpu"]),
        ("", "off", "noavx", ["noavx"]),
    ],
)
def test_with_on_only_variants_with_cuda_are_run_unless_one_is_named(
    tmp_path: Path, wanted_variant: str, mode: str, here: str, able: list[str]
) -> None:
    tree = make_tree(tmp_path / "oar", variants=TABLE)
    assert production.candidates(tree, wanted_variant, mode, made(here)) == able


def test_on_without_an_image_with_cuda_names_those_to_make(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "oar", variants=TABLE)
    with pytest.raises(SlipwayError, match="no production image of oar with CUDA") as caught:
        production.candidates(tree, "", "on", made("cpu noavx"))
    assert caught.value.code == UNAVAILABLE
    assert caught.value.fix == ("invoke prod --variant gpu,gpu-noavx",)
    with pytest.raises(SlipwayError, match="no production image of oar has been made") as caught:
        production.candidates(tree, "", "auto", {})
    assert caught.value.fix == ("invoke prod --variant all",)


def test_a_project_without_cuda_may_have_the_gpu_for_its_scripts(tmp_path: Path) -> None:
    assert production.candidates(make_tree(tmp_path / "oar"), "", "on", made("cpu")) == ["cpu"]


@pytest.fixture
def images_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[str, str, Answer]]:
    """Choose among images on a machine whose CPU runs all variants."""
    file = tmp_path / "cpuinfo"
    file.write_text(f"flags : {' '.join(f for fs in LEVEL_FLAGS.values() for f in fs)}\n")
    monkeypatch.setattr(variants, "CPUINFO", file)
    table = {**TABLE, "old": Variant(isa="x86-64-v4", suffix="-old", cuda=("sm_75",))}
    tree = make_tree(tmp_path / "oar", variants=table)

    def choose(here: str, *, wanted: str = "", mode: str = "auto") -> tuple[str, str, Answer]:
        tags = dict.fromkeys(made(here), "slipway-dev:1") | {"chosen": ""}
        monkeypatch.setattr(production, "made_images", lambda *_: tags)
        return production.choose_image(machine.workshop, tree, wanted, mode)

    return choose


def test_with_a_gpu_the_variant_with_cuda_is_run_and_both_reasons_are_printed(
    images_made: Callable[..., tuple[str, str, Answer]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, why, answer = images_made("cpu gpu gpu-noavx")
    assert why.startswith("gpu: this host has a GPU; ")
    assert answer.arguments == CDI.arguments
    assert capsys.readouterr().err == f"GPU: {H100.name} (sm_90) by CDI\n"


def test_without_a_gpu_one_with_cuda_is_never_run_unasked(
    machine: Machine, images_made: Callable[..., tuple[str, str, Answer]]
) -> None:
    machine.facts = facts(OLD, driver="")
    _, why, answer = images_made("cpu gpu")
    assert why.startswith("cpu: x86-64-v3")
    assert answer.arguments == ()
    with pytest.raises(SlipwayError, match="no variant is for a machine without a GPU: gpu"):
        images_made("gpu")
    assert images_made("cpu gpu", wanted="gpu")[1] == "gpu: as asked"
    with pytest.raises(SlipwayError, match="driver and toolkit"):
        images_made("cpu gpu", mode="on")


def test_a_variant_without_code_for_the_gpu_is_not_chosen_for_it(
    machine: Machine, images_made: Callable[..., tuple[str, str, Answer]]
) -> None:
    machine.answers = {CDI.arguments: (0, json.dumps({"devices": [[T4.name, 75]]}), "")}
    assert images_made("cpu gpu old")[1].startswith("old: ")
    _, why, answer = images_made("cpu gpu")
    assert why.startswith("cpu: ")
    assert answer.arguments == ()


def test_who_runs_a_variant_without_cuda_or_says_off_is_not_asked(
    machine: Machine,
    images_made: Callable[..., tuple[str, str, Answer]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert images_made("cpu noavx")[2] is NOT_ASKED
    assert images_made("cpu gpu", wanted="cpu")[2] is NOT_ASKED
    assert images_made("cpu gpu", mode="off")[1].startswith("cpu: ")
    assert machine.tried == []
    assert capsys.readouterr().err == ""


# -- doctor


def test_doctor_only_notes_what_is_missing(tmp_path: Path) -> None:
    workshop: Workshop = make_workshop(tmp_path)
    bare = gpu_finding(workshop, facts(OLD, driver=""))
    assert bare.level == "note"
    assert bare.what.startswith("no GPU: no NVIDIA driver on this machine, and no NVIDIA device; ")
    assert bare.fix.startswith("on a machine that has one: sudo apt-get install nvidia-driver")
    engine_only = gpu_finding(workshop, facts(OLD, toolkit=True))
    assert engine_only.fix == gpu.FIX_ENGINE
    able = gpu_finding(workshop, facts(NEWEST, hook=True))
    assert able.level == "note"
    assert able.what == "a GPU may be had by CDI or the nvidia runtime"


def test_doctor_says_what_a_probe_has_found(machine: Machine) -> None:
    machine.decide("auto")
    found = gpu_finding(machine.workshop, machine.facts)
    assert (found.level, found.what) == ("ok", f"GPU: {H100.name} (sm_90) by CDI")
    machine.facts = facts(OLD, hook=True)
    machine.decide("auto")
    refused = gpu_finding(machine.workshop, machine.facts)
    assert refused.level == "note"
    assert "nvidia-container-runtime-hook" in refused.what
