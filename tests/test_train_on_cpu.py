import importlib.util
import json
import platform
import subprocess
import sys

import pytest

from src.cli import ROOT

COMPARE = """
import json
from recipes import train_on_cpu
import keras, numpy as np, torch

def step():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3, 2, "same"), keras.layers.BatchNormalization(epsilon=0.01, momentum=0.8)]
    layers += [keras.layers.DepthwiseConv2D(5, 2, "same"), keras.layers.BatchNormalization(trainable=False)]
    model = keras.Sequential([keras.Input((9, 12, 3)), *layers])
    images = torch.tensor(np.random.default_rng(0).normal(size=(2, 9, 12, 3)), dtype=torch.float32)
    outputs = model(images, training=True)
    outputs.square().sum().backward()
    gradients = [weight.value.grad for weight in model.trainable_weights]
    weights = [weight.value for weight in model.weights]
    return [array.detach().numpy().copy() for array in [outputs, model(images), *gradients, *weights]]

before = step()
train_on_cpu.replace()
print(json.dumps([float(np.abs(one - two).max()) for one, two in zip(before, step(), strict=True)]))
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_a_step_gives_the_outputs_gradients_and_statistics_of_keras():
    done = subprocess.run([sys.executable, "-c", COMPARE], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert len(differences) == 2 + 6 + 12
    assert max(differences) < 1e-4


HALF = """
import json
from recipes import train_on_cpu
import keras, numpy as np, torch

images = torch.tensor(np.random.default_rng(0).normal(size=(2, 9, 12, 3)), dtype=torch.float32)
seen = []
plain = train_on_cpu.plain_depthwise_conv

def spy(inputs, kernel, *args, **kwargs):
    seen.extend([str(inputs.dtype), str(kernel.dtype)])
    return plain(inputs, kernel, *args, **kwargs)

def outputs(policy):
    return keras.layers.DepthwiseConv2D(3, 2, "same", dtype=policy, depthwise_initializer="ones")(images)

train_on_cpu.plain_depthwise_conv = spy
expected = outputs("float32")
train_on_cpu.replace()
half = outputs("mixed_bfloat16")
print(json.dumps([seen, str(half.dtype), float((half - expected).abs().max() / expected.abs().max())]))
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_depthwise_convolutions_of_16_bits_are_computed_in_32():
    done = subprocess.run([sys.executable, "-c", HALF], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    seen, half, difference = json.loads(done.stdout.splitlines()[-1])
    assert seen == ["torch.float32", "torch.float32"]
    assert half == "torch.bfloat16"
    assert difference < 0.01


FAULTS = """
import resource
import numpy as np
from recipes import train_on_cpu

def count_faults():
    np.ones(8 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = count_faults()
train_on_cpu.keep_freed_memory()
print(before, count_faults())
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after < before / 10
