"""Estimate age and gender of face images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from src import images, models
from src.cli import UserError
from src.images import FaceDetector
from src.inference.predictor import Prediction, Predictor
from src.inference.runtimes import InBackground, Run, open_runtime
from src.labels import AGE_CLASSES, GENDERS, HEADS, MALE, expected_age
from src.models import WeightsInfo


class AgeGenderEstimator:
    """Estimate age and gender of cropped faces, or find the faces of a whole image first.

    Example:
        >>> estimator = AgeGenderEstimator.load()
        >>> ages, male_probability = estimator.predict([face])
        >>> predictions = estimator.predict_image(image)

    Attributes:
        info: Description in the weight file; `info.margin` is the margin that faces must have.
        source: The weight file.
        mirrored: Whether predictions are averaged over a face and its mirror image.
    """

    def __init__(
        self,
        run: Run,
        info: WeightsInfo,
        source: Path | None = None,
        batch_size: int = 32,
        mirrored: bool | None = None,
    ):
        """Wrap a runtime, see `runtimes.open_runtime`; for the other arguments see `load`."""
        self.info = info
        self.source = source
        self.batch_size = batch_size
        self.mirrored = info.mirrored if mirrored is None else mirrored
        self._run_network = run
        self._detector = FaceDetector()

    @classmethod
    def load(
        cls,
        weight_file: str | os.PathLike | None = None,
        batch_size: int = 32,
        mirrored: bool | None = None,
        background: bool = False,
        threads: int = 0,
    ) -> Self:
        """Load a weight file.

        Args:
            weight_file: A path, or the name of a published file; None is the bundled model.
            batch_size: Maximum number of faces per call of the model.
            mirrored: Average over each face and its mirror image, at twice the time; None: as the weight file says.
            background: Return as soon as the file is identified; a network that needs Keras is built by a thread. Call
                `wait` at the end: it raises an error if the weights do not fit the network.
            threads: Threads of ONNX Runtime; 0: all cores.

        Raises:
            UserError: No weight file that this project knows, or one without trained heads.
        """
        path = models.bundled() if weight_file is None else Path(weight_file)
        run, info = open_runtime(path, background, threads)
        if not info.heads:
            raise UserError(f"{path} has no trained heads; train on it with model.weights={path}")
        return cls(run, info, path, batch_size, mirrored)

    @property
    def margin(self) -> float:
        """Margin that the model was trained with, in face boxes per side."""
        return self.info.margin

    def wait(self) -> None:
        """Wait for a network that is built in the background.

        Raises:
            UserError: The weights do not fit the network.
        """
        if isinstance(self._run_network, InBackground):
            self._run_network.wait()

    def describe(self) -> str:
        """Describe the model in use and its expected error in one line."""
        info = self.info
        name = self.source.name if self.source else info.label or info.model_name
        trained = f", trained on {info.data}" if info.data else ""
        mirrored = ", averaged over mirror images" if self.mirrored else ""
        trained = f", {' and '.join(info.heads)} only{trained}" if len(info.heads) < len(HEADS) else trained
        network = f"{info.model_name}, {info.img_size} pixels, margin {info.margin:g}{mirrored}"
        return f"{name}: {network}{trained}; {self._errors()}"

    def _errors(self) -> str:
        metrics = self.info.metrics
        parts = []
        if "val_pred_age_mae" in metrics and "age" in self.info.heads:
            parts.append(f"age off by {metrics['val_pred_age_mae']:.2f} years on average")
        if metrics.get("val_pred_gender_accuracy") and "gender" in self.info.heads:  # 0 if no image had a gender
            parts.append(f"gender right in {metrics['val_pred_gender_accuracy']:.1%}")
        return f"{', '.join(parts)} of its validation images" if parts else "its error is not known"

    def predict(self, faces: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Estimate ages and genders.

        Args:
            faces: Face images of any size, uint8 `(height, width, 3)` RGB, cropped with `self.margin`.

        Returns:
            Ages in years, 0..100, and the probability of being male, 0..1: two float64 arrays `(len(faces),)`. NaN
            where the head was not trained.

        Raises:
            ValueError: A face has another type or shape; predictions would be wrong.
        """
        genders, ages = self.predict_distributions(faces)
        return expected_age(ages), genders[:, MALE]

    def predict_distributions(self, faces: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Estimate genders and ages as distributions.

        Args:
            faces: As for `predict`, which also says what is raised.

        Returns:
            Probabilities of female and male, `(len(faces), 2)`, and of the ages 0 to 100, `(len(faces), 101)`: float64,
            rows sum to 1. NaN where the head was not trained.
        """
        for face in faces:
            check_image(face)
        outputs = np.empty((len(faces), len(GENDERS))), np.empty((len(faces), AGE_CLASSES))
        for start in range(0, len(faces), self.batch_size):
            rows = slice(start, start + self.batch_size)
            for output, values in zip(outputs, self._run(self.prepare(faces[rows])), strict=True):
                output[rows] = values
        for head, output in zip(HEADS, outputs, strict=True):
            if head not in self.info.heads:
                output[:] = np.nan
        genders, ages = outputs
        return (genders if self.info.gender_order == GENDERS else genders[:, ::-1]), ages

    def _run(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute both outputs of a batch, averaged over its mirror images if `mirrored`."""
        if not self.mirrored:
            return self._run_network(batch)
        genders, ages = self._run_network(np.concatenate([batch, batch[:, :, ::-1]]))
        half = len(batch)
        return (genders[:half] + genders[half:]) / 2, (ages[:half] + ages[half:]) / 2

    def predict_image(self, image: np.ndarray, detector: FaceDetector | None = None) -> list[Prediction]:
        """Find the faces of an image, crop them with `self.margin` and estimate them.

        Args:
            image: uint8 `(height, width, 3)` RGB, as `src.images.read_image` reads it.
            detector: By default one with the defaults of `FaceDetector`.

        Returns:
            One `Prediction` per face, the largest first: `box` in pixels of the image, `age` in years,
            `male_probability` 0..1, `gender` "F" or "M".

        Raises:
            ValueError: `image` has another type or shape.
        """
        check_image(image)
        return Predictor(detector or self._detector, self, self.margin, self.info.resize).predict(image)

    def prepare(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """Build the model's input: uint8 `(len(faces), size, size, 3)` in the channel order of the weights."""
        batch = np.stack([images.resize(face, self.info.img_size, self.info.resize) for face in faces])
        return batch[..., ::-1] if self.info.colour == "BGR" else batch


def check_image(image: np.ndarray) -> None:
    """Raise `ValueError` unless `image` is uint8 `(height, width, 3)` and not empty."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        received = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be uint8 (height, width, 3) RGB, got {received}")
    if not image.size:
        raise ValueError(f"image must have at least one pixel, got shape {image.shape}")
