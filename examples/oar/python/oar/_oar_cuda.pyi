from typing import Any, Literal

from oar.cuda import CudaArray
from oar.ops import FloatArray, IndexArray

class Array:
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> int: ...
    def __dlpack__(self, **options: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

def device_count() -> int: ...
def why_unavailable() -> str: ...
def device_name(device: int) -> str: ...
def from_numpy(array: FloatArray | IndexArray, device: int, stream: int) -> Array: ...
def to_numpy(array: CudaArray, stream: int) -> Any: ...
def synchronize(device: int) -> None: ...
def linear(x: CudaArray, weight: CudaArray, bias: CudaArray | None, stream: int) -> Array: ...
def linear_backward(
    dy: CudaArray, x: CudaArray, weight: CudaArray, stream: int
) -> tuple[Array, Array, Array]: ...
def relu(x: CudaArray, stream: int) -> Array: ...
def relu_backward(dy: CudaArray, x: CudaArray, stream: int) -> Array: ...
def gelu(x: CudaArray, stream: int) -> Array: ...
def gelu_backward(dy: CudaArray, x: CudaArray, stream: int) -> Array: ...
def softmax_cross_entropy(
    logits: CudaArray, labels: CudaArray, stream: int
) -> tuple[Array, Array]: ...
def softmax_cross_entropy_backward(
    dloss: CudaArray, probabilities: CudaArray, labels: CudaArray, stream: int
) -> Array: ...
def layer_norm(
    x: CudaArray, gamma: CudaArray, beta: CudaArray, eps: float, stream: int
) -> tuple[Array, Array, Array]: ...
def layer_norm_backward(
    dy: CudaArray, x: CudaArray, gamma: CudaArray, mean: CudaArray, rstd: CudaArray, stream: int
) -> tuple[Array, Array, Array]: ...
def embedding_bag(
    weight: CudaArray,
    indices: CudaArray,
    offsets: CudaArray,
    mode: Literal["sum", "mean"],
    stream: int,
) -> Array: ...
def embedding_bag_backward(
    dy: CudaArray,
    indices: CudaArray,
    offsets: CudaArray,
    rows: int,
    mode: Literal["sum", "mean"],
    stream: int,
) -> Array: ...
def conv2d(
    x: CudaArray,
    weight: CudaArray,
    bias: CudaArray | None,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    stream: int,
) -> Array: ...
def conv2d_backward(
    dy: CudaArray,
    x: CudaArray,
    weight: CudaArray,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    stream: int,
) -> tuple[Array, Array, Array]: ...
def max_pool2d(
    x: CudaArray,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    stream: int,
) -> tuple[Array, Array]: ...
def max_pool2d_backward(
    dy: CudaArray, positions: CudaArray, height: int, width: int, stream: int
) -> Array: ...
def adam_step(
    param: CudaArray,
    grad: CudaArray,
    first: CudaArray,
    second: CudaArray,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    stream: int,
) -> None: ...
