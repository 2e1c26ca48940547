"""Models, optimizers and learning rate schedules from the configuration."""

import dataclasses
import math

import keras
from keras import layers

from src.cli import UserError
from src.labels import AGE_CLASSES, GENDERS
from src.models import backbones

SCHEDULES = ("step", "cosine", "constant")


def get_model(model_name: str, img_size: int, weights: str | None = None, dropout: float = 0.0) -> keras.Model:
    """Build a backbone with a gender softmax and an age softmax.

    Args:
        model_name: A classification network of `keras.applications`, or `WideResNet`.
        img_size: Side of the square input, pixels.
        weights: None (random) or "imagenet".
        dropout: Share of features dropped before the heads in training, 0..1 (Srivastava et al., JMLR 2014).

    Returns:
        A model from `(batch, img_size, img_size, 3)`, RGB 0..255, to `[pred_gender (batch, 2), pred_age (batch, 101)]`,
        both float32 softmax.

    Raises:
        UserError: Unknown network, or a size that it does not support.
        JobError: The ImageNet weights could not be downloaded.
    """
    inputs, features = backbones.build(model_name, img_size, weights)
    if dropout:
        features = layers.Dropout(dropout, name="dropout")(features)
    # In float32, whatever the precision of the backbone.
    options = {"activation": "softmax", "use_bias": model_name != backbones.WIDE_RESNET, "dtype": "float32"}
    heads = [
        layers.Dense(classes, name=name, **options)(features)
        for name, classes in (("pred_gender", len(GENDERS)), ("pred_age", AGE_CLASSES))
    ]
    return keras.Model(inputs, heads, name=model_name)


def get_optimizer(
    name: str, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Build an optimizer by name.

    Args:
        name: "sgd" (Nesterov momentum 0.9), "adam", or "adamw" (Loshchilov & Hutter, arXiv 1711.05101).
        learning_rate: A number or a schedule.
        weight_decay: Decay per step in units of the learning rate, AdamW only. Call `exclude_from_weight_decay` with
            the model before training to exclude batch norm and biases.

    Raises:
        UserError: Unknown name.
    """
    match name.lower():
        case "sgd":
            return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)
        case "adam":
            return keras.optimizers.Adam(learning_rate)
        case "adamw":
            return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    raise UserError(f"train.optimizer_name must be one of sgd, adam, adamw, got {name!r}")


def exclude_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Exclude batch norm, layer norm and biases: every variable with fewer than two axes."""
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])


def get_scheduler(
    name: str, lr: float, epochs: int, steps_per_epoch: int, warmup_epochs: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Build a learning rate schedule.

    Args:
        name: "step" (times 0.2 at 25, 50 and 75 % of the epochs), "cosine" (to 0; Loshchilov & Hutter, arXiv
            1608.03983), or "constant".
        lr: Maximum learning rate.
        epochs: Epochs of the whole training.
        steps_per_epoch: Batches per epoch.
        warmup_epochs: Epochs over which the rate rises linearly from 0 to `lr` first (Goyal et al., arXiv 1706.02677).

    Raises:
        UserError: Unknown name.
    """
    if name not in SCHEDULES:
        raise UserError(f"train.schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    return Schedule(name, lr, epochs * steps_per_epoch, round(warmup_epochs * steps_per_epoch), steps_per_epoch)


@dataclasses.dataclass(eq=False)
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the step; see `get_scheduler`."""

    name: str
    lr: float
    total_steps: int
    warmup_steps: int
    steps_per_epoch: int

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rate = self.lr * self._factor(step)
        if self.warmup_steps:
            rate = rate * keras.ops.minimum((step + 1) / self.warmup_steps, 1.0)
        return rate

    def _factor(self, step):
        if self.name == "constant":
            return keras.ops.ones_like(step)
        if self.name == "cosine":
            decay_steps = max(self.total_steps - self.warmup_steps, 1)
            progress = keras.ops.clip((step - self.warmup_steps) / decay_steps, 0.0, 1.0)
            return 0.5 * (1 + keras.ops.cos(math.pi * progress))
        epoch = keras.ops.floor(step / self.steps_per_epoch)
        epochs = self.total_steps / self.steps_per_epoch
        drops = sum(keras.ops.cast(epoch >= epochs * share, "float32") for share in (0.25, 0.5, 0.75))
        return keras.ops.power(0.2, drops)

    def get_config(self):
        return dataclasses.asdict(self)
