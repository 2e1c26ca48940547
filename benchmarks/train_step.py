"""Measure images per second of training, and the share of the time that the device waits for data.

    python benchmarks/train_step.py model.model_name=EfficientNetB3 train.mixed_precision=true train.workers=14
    KERAS_BACKEND=jax python benchmarks/train_step.py --batch_sizes 64,128,256 train.mixed_precision=true
    python benchmarks/train_step.py --steps 20 model.model_name=MobileNetV2 model.img_size=96     # without a GPU

It takes the keys of `train.py`, builds and compiles the network as `train.py` does, and trains an epoch in two ways:

- "fixed batch": every step gets the same batch, which is in memory: the speed of the device.
- "end to end": `ImageSequence` reads JPEG files with all augmentation, as in training.

"waiting" is `1 - end to end / fixed batch`. On a GPU the host reads while the device computes, so this is the share of
the time without work for the device. On a CPU reading and computing share the cores: it is the share of reading. Each
epoch follows one of warming up, in which the step is compiled; it ends when the metrics have arrived from the device.
Without `--image_dir` images are generated: JPEG files of 300 pixels.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from input_pipeline import make_table, write_images  # beside this file

from src import cli, images
from src.training import distributed as distribution
from src.training.callbacks import EpochSetter, StepCallbacks
from src.training.config import Config
from src.training.generator import BatchSettings, ImageSequence
from src.training.model import make_model, precision_policy


class FixedBatch(keras.utils.PyDataset):
    """One batch, `steps` times."""

    def __init__(self, batch, steps: int):
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int):
        return self.batch


class Timer(keras.callbacks.Callback):
    """Record the seconds of each epoch, until its metrics are there."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)


def time_epoch(model: keras.Model, data: keras.utils.PyDataset, callbacks: list) -> float:
    """Return the seconds of the second of two epochs."""
    timer = Timer()
    run = {"epochs": 2, "verbose": 0, "shuffle": False}
    steps = {"epochs": 2, "verbose": 0, "steps": len(data)}
    model.fit(data, callbacks=StepCallbacks([*callbacks, timer], add_history=True, model=model, **steps), **run)
    return timer.seconds[1]


def measure(cfg, paths: list[Path], steps: int) -> tuple[float, float]:
    """Return images per second with a fixed batch and end to end."""
    keras.backend.clear_session()
    cfg = Config.check(cfg)
    batch_size = cfg.train.batch_size
    count = steps * batch_size
    with distribution.join(cfg):
        keras.mixed_precision.set_global_policy(precision_policy(cfg.train.mixed_precision))
        model = make_model(cfg, steps)
        sequence = ImageSequence(
            make_table((paths * (count // len(paths) + 1))[:count]),
            BatchSettings(cfg.model.img_size, batch_size, margin=0.4, shuffle=True),
            cfg.augment,
            workers=cfg.train.workers,
        )
        fixed = time_epoch(model, FixedBatch(sequence[0], steps), [])
        real = time_epoch(model, sequence, [EpochSetter(sequence)])
    return count / fixed, count / real


def parse() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of train.py")
    parser.add_argument("--batch_sizes", metavar="N,N,...", help="one row per size (default: model.batch_size)")
    parser.add_argument("--steps", type=int, default=100, help="steps per epoch")
    parser.add_argument("--image_dir", type=Path, help="folder of images (default: generated ones)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    with initialize_config_dir(str(cli.ROOT / "src"), version_base="1.3"):
        cfg = compose("config", overrides=["model.weights=null", *args.overrides])
    with tempfile.TemporaryDirectory() as folder:
        if args.image_dir is None:
            write_images(Path(folder), 300)
        paths = images.list_images(args.image_dir or Path(folder))
        precision = precision_policy(cfg.train.mixed_precision)
        print(
            f"{cfg.model.model_name}, size {cfg.model.img_size}, {precision}, {keras.backend.backend()}, "
            f"{cfg.train.workers} workers, {args.steps} steps; images per second:"
        )
        print(f"{'batch':>6}{'fixed batch':>14}{'end to end':>13}{'waiting':>10}")
        sizes = map(int, args.batch_sizes.split(",")) if args.batch_sizes else [cfg.train.batch_size]
        for batch_size in sizes:
            cfg.train.batch_size = batch_size
            fixed, real = measure(cfg, paths, args.steps)
            print(f"{batch_size:6}{fixed:14.1f}{real:13.1f}{np.clip(1 - real / fixed, 0, 1):10.1%}")


if __name__ == "__main__":
    cli.run(main)
