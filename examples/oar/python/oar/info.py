"""What this build of Oar is."""

from typing import TypedDict

from oar._native import _oar


class BuildInfo(TypedDict):
    """The answers of :func:`build_info`."""

    version: str  #: what the builder called this version
    variant: str  #: the row of the builder's variants table, e.g. ``cpu``
    isa: str  #: the instruction set the builder asked for, e.g. ``x86-64-v3``
    vector: str  #: the widest vectors the compiler was really allowed, e.g. ``avx2+fma``
    cuda_archs: list[str]  #: ``sm_80``, ``compute_90`` (PTX); empty in a build without CUDA
    commit: str  #: of the source; empty when unknown
    compiler: str  #: name and version
    openmp: bool  #: False: everything runs on the calling thread


def build_info() -> BuildInfo:
    """Return how the native library was built, as a new dictionary."""
    return _oar.build_info()
