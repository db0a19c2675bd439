"""What building needs, by the names that build files use: Debian's packages of the same.

The tables hold what native libraries name most often. What is in no table is told to the reader of
project.yaml, who knows better than a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from slipway.records import Record

# By the name in find_package(), pkg_check_modules() or Meson's dependency(), in small letters.
DEBIAN: dict[str, tuple[str, ...]] = {
    "absl": ("libabsl-dev",),
    "benchmark": ("libbenchmark-dev",),
    "blas": ("libopenblas-dev",),
    "boost": ("libboost-all-dev",),
    "bzip2": ("libbz2-dev",),
    "catch2": ("catch2",),
    "cblas": ("libopenblas-dev",),
    "curl": ("libcurl4-openssl-dev",),
    "cython": ("cython3",),
    "doctest": ("doctest-dev",),
    "eigen3": ("libeigen3-dev",),
    "expat": ("libexpat1-dev",),
    "fftw3": ("libfftw3-dev",),
    "fftw3f": ("libfftw3-dev",),
    "flatbuffers": ("libflatbuffers-dev", "flatbuffers-compiler"),
    "fmt": ("libfmt-dev",),
    "gflags": ("libgflags-dev",),
    "glog": ("libgoogle-glog-dev",),
    "gmp": ("libgmp-dev",),
    "gsl": ("libgsl-dev",),
    "hdf5": ("libhdf5-dev",),
    "jpeg": ("libjpeg-dev",),
    "lapack": ("libopenblas-dev",),
    "lapacke": ("liblapacke-dev",),
    "libcurl": ("libcurl4-openssl-dev",),
    "libjpeg": ("libjpeg-dev",),
    "liblz4": ("liblz4-dev",),
    "liblzma": ("liblzma-dev",),
    "libpng": ("libpng-dev",),
    "libtiff-4": ("libtiff-dev",),
    "libxml-2.0": ("libxml2-dev",),
    "libxml2": ("libxml2-dev",),
    "libzstd": ("libzstd-dev",),
    "lz4": ("liblz4-dev",),
    "mpi": ("libopenmpi-dev",),
    "nlohmann_json": ("nlohmann-json3-dev",),
    "openblas": ("libopenblas-dev",),
    "opencl": ("ocl-icd-opencl-dev",),
    "opencv": ("libopencv-dev",),
    "openssl": ("libssl-dev",),
    "pkgconfig": ("pkgconf",),
    "png": ("libpng-dev",),
    "protobuf": ("libprotobuf-dev", "protobuf-compiler"),
    "pybind11": ("pybind11-dev",),
    "rapidjson": ("rapidjson-dev",),
    "re2": ("libre2-dev",),
    "snappy": ("libsnappy-dev",),
    "spdlog": ("libspdlog-dev",),
    "sqlite3": ("libsqlite3-dev",),
    "swig": ("swig",),
    "tbb": ("libtbb-dev",),
    "tiff": ("libtiff-dev",),
    "yaml-cpp": ("libyaml-cpp-dev",),
    "zlib": ("zlib1g-dev",),
    "zstd": ("libzstd-dev",),
}

# In the dev image, in the compiler, or of no use there.
NOTHING = re.compile(
    r"cuda|cudart|cudatoolkit|dl|doxygen|git|gmock|gtest|gtest_main|latex|m|nanobind|numpy|openmp"
    r"|perl|python|python3|pythoninterp|pythonlibs|rt|sphinx|threads"
)

# Debian's name, where it is not python3- and the name in the package index.
PYTHON = {
    "attrs": "python3-attr",
    "beautifulsoup4": "python3-bs4",
    "opencv-python": "python3-opencv",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "pyserial": "python3-serial",
    "pyyaml": "python3-yaml",
    "pyzmq": "python3-zmq",
    "ruamel-yaml": "python3-ruamel.yaml",
    "scikit-image": "python3-skimage",
    "scikit-learn": "python3-sklearn",
    "zope-interface": "python3-zope.interface",
}

# Where a marker of a requirement is asked: the dev image of Debian 13.
IMAGE = {
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.13.5",
    "python_version": "3.13",
    "sys_platform": "linux",
}


class Wish(Record, frozen=True):
    """A library that a build file looks for."""

    name: str
    """As the file has it."""
    call: str
    """How it looks for it, such as ``find_package(ZLIB)``."""
    needed: bool
    """Whether the build fails without it, whatever its options are."""

    @property
    def packages(self) -> tuple[str, ...] | None:
        """Debian's packages that have it; None: no table knows."""
        name = self.name.lower()
        return () if NOTHING.fullmatch(name) else DEBIAN.get(name)


def applying(requirements: Iterable[str]) -> list[Requirement]:
    """The requirements of a Python package that hold in the dev image; no extras, no addresses."""
    found = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except (InvalidRequirement, TypeError):
            continue
        here = requirement.marker is None or requirement.marker.evaluate(dict(IMAGE))
        if here and not requirement.url:
            found.append(requirement)
    return found


def debian_python(name: str) -> str:
    """Debian's package of a Python package, by Debian's rule; whether it exists is not asked."""
    canonical = canonicalize_name(name)
    return PYTHON.get(canonical, f"python3-{canonical.removeprefix('python-')}")


def build_depends(text: str, *, tests: bool) -> list[str]:
    """The packages in a field such as Build-Depends of debian/control.

    Versions go, of alternatives the first stays. What only Debian's packaging needs goes too.

    :param tests: whether tests are run, so that what is marked ``<!nocheck>`` counts.
    """
    names = []
    for entry in re.sub(r"#.*", "", text).split(","):
        first = entry.split("|")[0]
        found = re.match(r"\s*([a-z0-9][a-z0-9+.-]+)", first)
        if not found or not _counts(first, tests=tests):
            continue
        if not re.match(r"debhelper|dh-|cmake$|dpkg-dev$", found[1]):
            names.append(found[1])
    return list(dict.fromkeys(names))


def _counts(entry: str, *, tests: bool) -> bool:
    """Whether an entry's architectures and build profiles are those of an ordinary x86-64 build."""
    machines = " ".join(re.findall(r"\[([^\]]*)\]", entry)).split()
    if machines:
        ours = {"amd64", "any", "linux-any", "any-amd64"}
        denied = {name[1:] for name in machines if name.startswith("!")}
        if denied & ours or not (denied or set(machines) & ours):
            return False
    profiles = " ".join(re.findall(r"<([^>]*)>", entry)).split()
    return all(name.startswith("!") for name in profiles) and (tests or "!nocheck" not in profiles)
