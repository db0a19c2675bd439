"""Slipway: from a native library's source tree to what its users install and run."""
