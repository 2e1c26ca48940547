"""Losses and metrics of the age head, for exact ages and for ages known only as a range.

`true` is `(batch, 101)`, a distribution over the age classes, or `(batch, 303)` where the table knows ranges: see
`src.training.targets.join_ranges`. `predicted` is `(batch, 101)`, rows sum to 1.
"""

from collections.abc import Callable

import keras

from src.labels import AGE_CLASSES


def age_loss(expectation_weight: float = 0.0, has_ranges: bool = False) -> str | Callable:
    """Return the loss of the age head: likelihood of the label, and the error of the expected age.

    An exact age costs the cross entropy. A range costs minus the logarithm of the probability within it. The error of
    the expected age, which is what evaluation measures, is added as in DLDL-v2 (Gao et al., "Age Estimation Using
    Expectation of Label Distribution Learning", IJCAI 2018), where both parts have the weight 1; cross entropy differs
    from its divergence by a constant. A mixed row costs the mix of both rows' losses.

    Args:
        expectation_weight: Weight of each year between the expectations, >= 0; 0 is the likelihood alone.
        has_ranges: `true` is `(batch, 303)`.

    Returns:
        A loss for `keras.Model.compile`.
    """
    if expectation_weight == 0 and not has_ranges:
        return "categorical_crossentropy"
    likelihood = range_cross_entropy if has_ranges else keras.losses.categorical_crossentropy

    def likelihood_and_expectation(true, predicted):
        loss = likelihood(true, predicted)
        return loss + expectation_weight * expected_age_error(true, predicted) if expectation_weight else loss

    return likelihood_and_expectation


def range_cross_entropy(true, predicted):
    """Compute the cross entropy of exact ages and `-log(sum of p over the range)` of ranges, `(batch,)`."""
    distribution, *ranges = keras.ops.split(true, 3, axis=-1)
    loss = -keras.ops.sum(distribution * _log(predicted), axis=-1)
    for scaled in ranges:  # the classes of a range hold the row's share, 1 without mixup
        share = keras.ops.max(scaled, axis=-1)
        inside = keras.ops.sum(keras.ops.sign(scaled) * predicted, axis=-1)
        loss = loss - share * _log(inside)
    return loss


def _log(probability):
    epsilon = keras.config.epsilon()
    return keras.ops.log(keras.ops.clip(probability, epsilon, 1.0))


def expected_age_error(true, predicted):
    """Compute the difference of expected ages in years, `(batch,)`; for a range the distance to it, 0 within."""
    years = keras.ops.arange(AGE_CLASSES, dtype="float32")
    if true.shape[-1] == AGE_CLASSES:
        return keras.ops.abs(keras.ops.sum((true - predicted) * years, axis=-1))
    distribution, *ranges = keras.ops.split(true, 3, axis=-1)
    age = keras.ops.sum(predicted * years, axis=-1)
    exact_share = keras.ops.sum(distribution, axis=-1)
    error = keras.ops.abs(keras.ops.sum(distribution * years, axis=-1) - exact_share * age)
    for scaled in ranges:
        share = keras.ops.max(scaled, axis=-1)
        inside = keras.ops.sign(scaled)
        first = (AGE_CLASSES - 1) - keras.ops.max(inside * ((AGE_CLASSES - 1) - years), axis=-1)
        last = keras.ops.max(inside * years, axis=-1)
        error = error + share * (keras.ops.relu(first - age) + keras.ops.relu(age - last))
    return error


class AgeMeanAbsoluteError(keras.metrics.Mean):
    """Mean absolute error in years between true and predicted expected ages, over the rows with an exact age.

    With `train.predictions` a row with a range counts too, by their share. NaN where no row has one.
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch; a mixed row counts by its share of exact ages."""
        distribution = y_true[:, :AGE_CLASSES]
        share = keras.ops.sum(distribution, axis=-1)
        distribution = distribution / keras.ops.maximum(share, keras.config.epsilon())[:, None]
        weight = share if sample_weight is None else share * keras.ops.cast(sample_weight, share.dtype)
        return super().update_state(expected_age_error(distribution, y_pred), weight)

    def result(self):
        """Return the mean of all batches."""
        return keras.ops.where(self.count > 0, super().result(), float("nan"))


class AgeAccuracy(keras.metrics.Mean):
    """Share of rows whose most probable age is the true class or lies within the true range."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch; of a mixed row the largest share counts."""
        y_true = keras.ops.convert_to_tensor(y_true)
        distribution, *ranges = keras.ops.split(y_true, y_true.shape[-1] // AGE_CLASSES, axis=-1)
        best = keras.ops.one_hot(keras.ops.argmax(y_pred, axis=-1), AGE_CLASSES)
        at_peak = keras.ops.sum(best * distribution, axis=-1) >= keras.ops.max(distribution, axis=-1)
        inside = [keras.ops.sum(best * scaled, axis=-1) > 0 for scaled in ranges]
        hits = keras.ops.stack([at_peak, *inside])
        shares = [keras.ops.sum(distribution, axis=-1), *(keras.ops.max(scaled, axis=-1) for scaled in ranges)]
        shares = keras.ops.stack(shares)
        counts = shares >= keras.ops.max(shares, axis=0)
        hit = keras.ops.any(keras.ops.logical_and(hits, counts), axis=0)
        return super().update_state(keras.ops.cast(hit, "float32"), sample_weight)
