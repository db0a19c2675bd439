from typing import Literal

from oar.info import BuildInfo
from oar.ops import FloatArray, IndexArray, PositionArray

def build_info() -> BuildInfo: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def linear(x: FloatArray, weight: FloatArray, bias: FloatArray | None) -> FloatArray: ...
def linear_backward(
    dy: FloatArray, x: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
def relu(x: FloatArray) -> FloatArray: ...
def relu_backward(dy: FloatArray, x: FloatArray) -> FloatArray: ...
def gelu(x: FloatArray) -> FloatArray: ...
def gelu_backward(dy: FloatArray, x: FloatArray) -> FloatArray: ...
def softmax_cross_entropy(
    logits: FloatArray, labels: IndexArray
) -> tuple[FloatArray, FloatArray]: ...
def softmax_cross_entropy_backward(
    dloss: FloatArray, probabilities: FloatArray, labels: IndexArray
) -> FloatArray: ...
def layer_norm(
    x: FloatArray, gamma: FloatArray, beta: FloatArray, eps: float
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
def layer_norm_backward(
    dy: FloatArray, x: FloatArray, gamma: FloatArray, mean: FloatArray, rstd: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
def embedding_bag(
    weight: FloatArray, indices: IndexArray, offsets: IndexArray, mode: Literal["sum", "mean"]
) -> FloatArray: ...
def embedding_bag_backward(
    dy: FloatArray,
    indices: IndexArray,
    offsets: IndexArray,
    rows: int,
    mode: Literal["sum", "mean"],
) -> FloatArray: ...
def conv2d(
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
) -> FloatArray: ...
def conv2d_backward(
    dy: FloatArray,
    x: FloatArray,
    weight: FloatArray,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
def max_pool2d(
    x: FloatArray,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
) -> tuple[FloatArray, PositionArray]: ...
def max_pool2d_backward(
    dy: FloatArray, positions: PositionArray, height: int, width: int
) -> FloatArray: ...
def adam_step(
    param: FloatArray,
    grad: FloatArray,
    first: FloatArray,
    second: FloatArray,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None: ...
