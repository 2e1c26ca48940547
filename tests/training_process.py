"""Trains in a process of its own, which kills itself (SIGKILL) at a stated moment of epoch 3.

    python tests/training_process.py MOMENT OVERRIDE ...

MOMENT is `never`, `batch` (in mid-epoch), or the beginning of the name of a file in the checkpoint folder: the kill
comes when that file has been written beside its place and is about to be renamed.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hydra import compose, initialize_config_dir

from src import cli
from src.training import callbacks

training = importlib.import_module("src.training.train")  # the face has a function of this name

EPOCH = 3


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_mid_epoch() -> None:
    class Killer(training.EpochSetter):
        def on_train_batch_end(self, batch, logs=None):
            if self.sequence.epoch == EPOCH - 1 and batch == 1:
                kill()

    training.EpochSetter = Killer


def kill_before_rename(start: str) -> None:
    """Both ways of renaming that the project uses, `os.replace` and `Path.replace`, become the kill."""
    state_epochs = []
    original_end = callbacks.Checkpoint.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        state_epochs.append(epoch + 1)
        original_end(self, epoch, logs)

    callbacks.Checkpoint.on_epoch_end = on_epoch_end

    def killing(rename):
        def replace(source, target):
            if state_epochs[-1:] == [EPOCH] and Path(target).name.startswith(start):
                kill()
            return rename(source, target)

        return replace

    os.replace = killing(os.replace)
    Path.replace = killing(Path.replace)


def main() -> None:
    moment, *overrides = sys.argv[1:]
    callbacks.draw_curves = lambda *_: None  # they take longer than an epoch, and have a test of their own
    if moment == "batch":
        kill_in_mid_epoch()
    elif moment != "never":
        kill_before_rename(moment)
    with initialize_config_dir(str(cli.ROOT / "src"), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    cli.end(cli.call(lambda: training.train(cfg) and None))


if __name__ == "__main__":
    main()
