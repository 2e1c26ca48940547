"""`train.py` on PyTorch, faster on a CPU: fused batch norm, no copies between memory layouts, freed memory is kept.

    pip install torch
    python recipes/train_on_cpu.py data.db=utkface model.model_name=EfficientNetLite0 ...

Same arguments and results as `KERAS_BACKEND=torch python train.py`. Three functions of Keras 3.15 are replaced: its
batch norm is a dozen operations over the whole feature map; its convolutions copy their input to channels first, and
PyTorch back to channels last; with `train.mixed_precision=true` depthwise convolutions have 32 bits, since PyTorch's
gradient of 16 is slow. On Linux freed memory stays with the process: without that every step would give back its
feature maps and get them anew, page by page. `benchmarks/train_on_cpu.py` measures the speed.
"""

import ctypes
import os
import runpy
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

try:
    import torch
except ModuleNotFoundError:
    sys.exit("error: the package torch is missing; run pip install torch")
import keras
from keras.src.backend.torch import nn

ROOT = Path(__file__).resolve().parents[1]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`, as `malloc.h` names them."""
plain_batch_norm = keras.layers.BatchNormalization.call
plain_depthwise_conv = nn.depthwise_conv


def channels_first(inputs: torch.Tensor) -> torch.Tensor:
    """View `(batch, ..., channels)` as `(batch, channels, ...)`, without a copy."""
    return inputs.movedim(-1, 1)


def batch_norm(self, inputs: torch.Tensor, training: bool | None = None, mask=None) -> torch.Tensor:
    """`keras.layers.BatchNormalization.call` in one operation."""
    if inputs.ndim != 4 or mask is not None or not (self.scale and self.center) or self.axis not in (-1, 3):
        return plain_batch_norm(self, inputs, training, mask)
    scale_and_offset = self.gamma.value, self.beta.value
    if not (training and self.trainable):
        statistics = self.moving_mean.value, self.moving_variance.value
        outputs = torch.batch_norm(
            inputs.movedim(-1, 1), *scale_and_offset, *statistics, False, 0.0, self.epsilon, False
        )
        return outputs.movedim(1, -1)
    outputs, mean, inverse = torch.native_batch_norm(
        inputs.movedim(-1, 1), *scale_and_offset, None, None, True, 0.0, self.epsilon
    )
    with torch.no_grad():
        share = 1 - self.momentum
        self.moving_mean.value.lerp_(mean, share)
        self.moving_variance.value.lerp_(inverse**-2 - self.epsilon, share)
    return outputs.movedim(1, -1)


def depthwise_conv(inputs: torch.Tensor, kernel, *args, **kwargs) -> torch.Tensor:
    """`keras.ops.depthwise_conv`, computed in 32 bits; outputs have the type of the inputs."""
    outputs = plain_depthwise_conv(inputs.float(), nn.convert_to_tensor(kernel).float(), *args, **kwargs)
    return outputs.to(inputs.dtype)


def keep_freed_memory() -> None:
    """Have the C library reuse large blocks, in place of returning them to the system (glibc's mallopt(3))."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def replace() -> None:
    """Replace the three functions."""
    nn._transpose_spatial_inputs = channels_first
    nn.depthwise_conv = depthwise_conv
    keras.layers.BatchNormalization.call = batch_norm


def run(script: Path) -> None:
    """Run a script with all of this, as Python runs it."""
    keep_freed_memory()
    replace()
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    run(ROOT / "train.py")
