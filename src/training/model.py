"""From the configuration to a compiled network."""

from collections.abc import Collection

import keras

from src import models
from src.cli import UserError
from src.labels import GENDERS, HEADS
from src.models import sixteen_bit_type
from src.training import losses
from src.training.config import Config
from src.training.distributed import ALONE, Group
from src.training.losses import AgeAccuracy, AgeMeanAbsoluteError


def make_model(
    cfg: Config,
    steps_per_epoch: int,
    resuming: bool = False,
    group: Group = ALONE,
    has_ranges: bool = False,
    heads: Collection[str] = HEADS,
) -> keras.Model:
    """Build and compile the network, with the weights that `model.weights` names.

    Args:
        steps_per_epoch: Batches of an epoch, for the schedule and the batch norm momentum.
        resuming: All variables are about to be loaded from a run's state; `model.weights` is not read again.
        group: Of several processes the first reads the weights and gives them to the others.
        has_ranges: The batches hold age targets of `(n, 303)`, see `src.training.targets.join_ranges`.
        heads: Those that are trained; the others keep the weights that they begin with.
    """
    start = None if resuming else cfg.model.weights
    if start is None or group.processes == 1:
        model = _build(cfg, start)
    else:
        model = _build(cfg, None)
        random = model.get_weights()
        model.set_weights(group.arrays_from_first(lambda: _build(cfg, start).get_weights(), random))
        models.finalize_normalization(model)
    momentum = cfg.train.batch_norm_momentum
    models.set_batch_norm_momentum(
        model, models.batch_norm_momentum(steps_per_epoch) if momentum == "auto" else momentum
    )
    compile_model(cfg, model, steps_per_epoch, has_ranges, heads)
    return model


def _build(cfg: Config, start: str | None) -> keras.Model:
    pretrained = "imagenet" if start == "imagenet" else None
    model = models.get_model(cfg.model.model_name, cfg.model.img_size, pretrained, cfg.model.dropout)
    if start is not None and pretrained is None:
        load_start_weights(model, start)
    return model


def load_start_weights(model: keras.Model, path: str) -> None:
    """Load a weight file of the same network, of any size, into one that is about to be trained.

    Raises:
        UserError: no weight file to train on, or one of another network, colour order or order of genders.
        JobError: a download failed.
    """
    info = models.identify(path)
    if info.model_name != model.name:
        raise UserError(
            f"{path} must have weights of {model.name}, got those of {info.model_name}; "
            f"use model.model_name={info.model_name}"
        )
    if info.colour != "RGB" or info.gender_order != GENDERS:
        raise UserError(
            f"{path} must take RGB and give female, male, got {info.colour} and "
            f"{', '.join(info.gender_order)}; such weights can be used by demo.py and evaluate.py, not trained further"
        )
    models.load_weights_into(model, path)


def compile_model(
    cfg: Config, model: keras.Model, steps_per_epoch: int, has_ranges: bool = False, heads: Collection[str] = HEADS
) -> None:
    """Compile with the losses of the trained heads, the configured optimizer and the metrics of the log."""
    for layer in model.layers[: round(cfg.model.frozen * len(model.layers))]:
        layer.trainable = False  # batch norm too: it keeps its statistics
    for head in HEADS:
        model.get_layer(f"pred_{head}").trainable = head in heads
    head_losses = ["categorical_crossentropy", losses.age_loss(cfg.train.age_expectation_weight, has_ranges)]
    metrics = [
        [keras.metrics.CategoricalAccuracy(name="accuracy")],
        [AgeAccuracy(name="accuracy"), AgeMeanAbsoluteError(name="mae")],
    ]
    schedule = models.get_scheduler(
        cfg.train.schedule, cfg.train.lr, cfg.train.epochs, steps_per_epoch, cfg.train.warmup_epochs
    )
    optimizer = models.get_optimizer(cfg.train.optimizer_name, schedule, cfg.train.weight_decay)
    models.exclude_from_weight_decay(optimizer, model)
    model.compile(
        optimizer=optimizer,
        loss=[loss if head in heads else None for head, loss in zip(HEADS, head_losses, strict=True)],
        loss_weights=[1.0, float(cfg.train.age_loss_weight)],
        weighted_metrics=[own if head in heads else [] for head, own in zip(HEADS, metrics, strict=True)],
    )
    model.optimizer.build(model.trainable_variables)  # with float16 Keras has wrapped it, to scale the loss


def precision_policy(mixed: bool) -> str:
    """Return the name of the Keras policy."""
    return f"mixed_{sixteen_bit_type()}" if mixed else "float32"
