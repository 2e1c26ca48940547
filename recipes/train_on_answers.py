"""`train_on_cpu.py` on what other networks predict, beside the labels (knowledge distillation, arXiv 1503.02531).

    ANSWERS=checkpoints/answers.npz python recipes/train_on_answers.py data.db=[utkface,fairface] ...

`ANSWERS` is a file of `ask_networks.py` for these tables. Its predictions have half of each target; the loss stays
that of `train.py`, and validation is on labels alone.
"""

import importlib
import os
import runpy
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recipes import train_on_cpu  # chooses the backend before Keras is imported
from src.cli import ROOT, UserError

SHARE = 0.5
"""Of the predictions in the targets."""


def teach_answers(answers: str) -> None:
    """Make `train` blend the predictions of a file into the targets of training."""
    training_module = importlib.import_module("src.training.train")
    plain = training_module.make_sequences

    def make_sequences(*args):
        training, *others = plain(*args)
        with np.load(answers) as file:
            rows = {path: row for row, path in enumerate(file["path"].tolist())}
            missing = [path for path in training.paths if path not in rows]
            if missing:
                raise UserError(
                    f"{answers} must have all images of training, got none for {len(missing):,} of them, such as "
                    f"{missing[0]}; run recipes/ask_networks.py with the same tables"
                )
            order = [rows[path] for path in training.paths]
            training.blend_targets(file["gender"][order], file["age"][order], SHARE)
        return training, *others

    training_module.make_sequences = make_sequences


if __name__ == "__main__":
    answers = os.environ.get("ANSWERS", "")
    if not Path(answers).is_file():
        sys.exit(f"error: ANSWERS must name a file of recipes/ask_networks.py, got {answers!r}")
    train_on_cpu.replace()
    teach_answers(answers)
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
