"""Oar: forward and backward kernels of a few neural-network layers, on NumPy arrays.

Arrays are float32 and C-contiguous; nothing is converted or copied on the way in. An array of
another dtype, or an argument that is no array, raises TypeError; a wrong shape, or an array that
is not C-contiguous, raises ValueError; both name the argument. Labels and indices are int32 or
int64, and one outside its table raises IndexError. Results are new arrays.

A backward function takes the gradient ``dy`` of the loss with respect to the forward result, the
forward arguments it needs, and returns the gradients with respect to them.

The functions release the GIL while they compute, so no other thread may change their arguments
meanwhile. A result does not depend on the number of threads.

:mod:`oar.cuda` has the same functions on arrays in a GPU's memory.
"""

# First of all: on a CPU without this build's instructions it raises ImportError, before anything
# that holds them is loaded.
import oar._cpu  # noqa: F401

# isort: split
from oar import cuda
from oar.info import BuildInfo, build_info
from oar.ops import (
    adam_step,
    conv2d,
    conv2d_backward,
    embedding_bag,
    embedding_bag_backward,
    gelu,
    gelu_backward,
    get_num_threads,
    layer_norm,
    layer_norm_backward,
    linear,
    linear_backward,
    max_pool2d,
    max_pool2d_backward,
    relu,
    relu_backward,
    set_num_threads,
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
)

__version__: str = build_info()["version"]

__all__ = [
    "BuildInfo",
    "adam_step",
    "build_info",
    "conv2d",
    "conv2d_backward",
    "cuda",
    "embedding_bag",
    "embedding_bag_backward",
    "gelu",
    "gelu_backward",
    "get_num_threads",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "relu",
    "relu_backward",
    "set_num_threads",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
]
