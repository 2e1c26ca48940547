"""Fixtures that several test files share."""

import os
import signal
from collections import Counter
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tests' numbers are those of a CPU
os.environ.setdefault("WANDB_MODE", "disabled")

import numpy as np
import pandas as pd
import pytest

from src.cli import ROOT
from src.images.io import write_image

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, by what tests start too
pd.set_option("mode.string_storage", "python")  # as users have it; the tests' requirements install pyarrow for Ray


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the most slow tests, so that the processes of xdist end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def faces_csv(tmp_path: Path) -> Path:
    """A user's table of 24 images of 40 x 40 pixels: 16 train, 8 val; brightness tells age, colour gender."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "faces"
    folder.mkdir()
    lines = ["genders,ages,img_paths,split"]
    for i in range(24):
        gender, age = i % 2, int(rng.integers(0, 101))
        image = np.full((40, 40, 3), age * 2, np.uint8)
        image[..., 2 * gender] = 255 - age
        image += rng.integers(0, 20, image.shape, dtype=np.uint8)
        write_image(folder / f"{i:02d}.png", image)
        lines.append(f"{gender},{age},{i:02d}.png,{'train' if i < 16 else 'val'}")
    csv = tmp_path / "faces.csv"
    csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return csv


@pytest.fixture
def training_overrides(faces_csv: Path, tmp_path: Path) -> list[str]:
    """Overrides that shrink the real configuration to a training of seconds on `faces_csv`."""
    return [
        f"data.db={faces_csv}",
        f"data.image_dir={faces_csv.with_suffix('')}",
        f"train.checkpoint_dir={tmp_path / 'checkpoints'}",
        "model.model_name=MobileNet",
        "model.img_size=32",
        "model.batch_size=6",
        "model.weights=null",
        "train.epochs=2",
        "train.workers=0",
        "train.export_onnx=false",
    ]


@pytest.fixture
def tiny_network(monkeypatch):
    """Builds two convolutions in place of every backbone: they compile within a second."""
    import distributed_process

    from src.models import backbones

    monkeypatch.setattr(backbones, "build", distributed_process.build)


@pytest.fixture
def compose():
    """`compose(*overrides)` gives the configuration that `train.py` would get."""
    from hydra import compose, initialize_config_dir

    def compose_config(*overrides: str):
        with initialize_config_dir(str(ROOT / "src"), version_base="1.3"):
            return compose("config", overrides=list(overrides))

    return compose_config
