"""Fixtures that several test files share."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tests' figures are those of a CPU
os.environ.setdefault("WANDB_MODE", "disabled")
