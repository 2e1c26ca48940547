"""Fixtures that several test files share."""

import copy
import os
import signal
from functools import cache
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tests' numbers are those of a CPU
os.environ.setdefault("WANDB_MODE", "disabled")

import numpy as np
import pandas as pd
import pytest

from src.cli import ROOT
from src.images.io import write_image

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, by what tests start too
pd.set_option("mode.string_storage", "python")  # as users have it; the tests' requirements install pyarrow for Ray


LONGEST = [
    "training/test_distributed.py",
    "training/test_train.py",
    "models/test_weights.py",
    "test_export.py",
    "test_label_with_ray.py",
    "models/test_export.py",
    "models/test_backbones.py",
    "models/test_hostile_weights.py",
    "test_demo.py",
    "models/test_published.py",
    "training/test_generator.py",
    "test_train.py",
    "test_startup.py",
    "test_notebook.py",
    "test_train_on_cpu.py",
]
"""Files by the processor time of their tests, from minutes to ten seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that the processes of xdist end together."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    assert not [path for path in places if not path.is_file()], "LONGEST names files that are gone"
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


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
    build_tiny_networks(monkeypatch)


@pytest.fixture(scope="module")
def tiny_networks():
    """As `tiny_network`, for all tests of a file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        build_tiny_networks(monkeypatch)
        yield


def build_tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed_process

    from src.models import backbones

    monkeypatch.setattr(backbones, "build", distributed_process.build)


@pytest.fixture
def in_this_process(monkeypatch):
    """Weight files are validated here, as where there is no interpreter to start: that spares a process for each."""
    monkeypatch.setattr("src.models.weights.sandbox.sys", SimpleNamespace(executable=""))


@pytest.fixture(scope="module")
def built_networks() -> dict:
    return {}


@pytest.fixture
def networks_built_once(monkeypatch, built_networks):
    """`load_model` fills a network that an earlier test has built; its weights are NaN until then."""
    from src.models import backbones, factory

    build = factory.get_model

    def get_model(name: str, size: int):
        if (name, size) not in built_networks:
            built_networks[name, size] = build(name, size)
        model = built_networks[name, size]
        arrays = model.get_weights()
        model.set_weights([np.full_like(array, np.nan if array.dtype.kind == "f" else 0) for array in arrays])
        backbones.finalize_normalization(model)
        return model

    monkeypatch.setattr(factory, "get_model", get_model)


@pytest.fixture
def compose():
    """`compose(*overrides)` gives the configuration that `train.py` would get."""
    return lambda *overrides: copy.deepcopy(compose_once(*overrides))


@cache
def compose_once(*overrides: str):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "src"), version_base="1.3"):
        return compose("config", overrides=list(overrides))
