"""Loads the extension module; everything else imports it from here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_POLICY = "OMP_WAIT_POLICY"


@contextmanager
def patient_threads() -> Iterator[None]:
    """Let OpenMP's idle threads sleep, unless the user says otherwise.

    By default GNU's OpenMP lets them spin for milliseconds, and where other programs want the same
    cores, that slows small kernels down tenfold. It reads the variable once, when it is loaded, so
    the environment can be put back at once.
    """
    if WAIT_POLICY in os.environ or "GOMP_SPINCOUNT" in os.environ:
        yield
        return
    os.environ[WAIT_POLICY] = "passive"
    try:
        yield
    finally:
        del os.environ[WAIT_POLICY]


with patient_threads():
    from oar import _oar

__all__ = ["_oar"]
