import math

import numpy as np
import pandas as pd
import pytest

from src.evaluation import metrics
from src.evaluation.age_groups import FAIRFACE

NAN = float("nan")


def test_age_errors_by_hand():
    true, predicted = [20, 30, 40, NAN], [22, 30, 31, 50]  # errors 2, 0, -9, unknown
    assert metrics.mean_absolute_error(true, predicted) == pytest.approx(11 / 3)
    assert metrics.mean_error(true, predicted) == pytest.approx(-7 / 3)


def test_cumulative_score_counts_the_bound_itself():
    true, predicted = [20, 20, 20, 20, NAN], [25, 15, 25.01, 40, 20]
    assert metrics.cumulative_score(true, predicted) == 0.5
    assert metrics.cumulative_score(true, predicted, k=20) == 1.0
    assert metrics.cumulative_score(true, predicted, k=0) == 0.0


def test_epsilon_error_by_hand():
    # One spread off: 1 - exp(-1/2); two spreads off: 1 - exp(-2); a hit: 0.
    expected = ((1 - math.exp(-0.5)) + (1 - math.exp(-2)) + 0) / 3
    assert metrics.epsilon_error([30, 30, 30], [5, 5, 5], [35, 20, 30]) == pytest.approx(expected)


def test_epsilon_error_without_spread():
    assert metrics.epsilon_error([30], [0], [30]) == 0
    assert metrics.epsilon_error([30], [0], [31]) == 1
    assert metrics.epsilon_error([30, 30], [NAN, 5], [99, 30]) == 0  # only the second row counts


def test_gender_accuracy_by_hand():
    # male 0.9 right, male 0.4 wrong, female 0.1 right, female 0.5 wrong (0.5 means male), unknown
    assert metrics.gender_accuracy([1, 1, 0, 0, NAN], [0.9, 0.4, 0.1, 0.5, 0.9]) == 0.5


def test_metrics_over_nothing_are_nan():
    assert math.isnan(metrics.mean_absolute_error([NAN], [3]))
    assert math.isnan(metrics.cumulative_score([], []))
    assert math.isnan(metrics.gender_accuracy([NAN], [0.2]))
    assert math.isnan(metrics.called_adult([30], [30]))


def test_called_adult():
    true, predicted = [5, 12, 17, 18, NAN], [3, 18, 17.9, 30, 40]
    assert metrics.called_adult(true, predicted) == pytest.approx(1 / 3)
    assert metrics.called_adult(true, predicted, below=10) == 0.0


def test_group_accuracy():
    # true 20-29: predicted 10-19 near, 3-9 far; true 70+: 60-69 near, 70+ exact; unknown does not count
    true, predicted = [3, 3, 8, 8, -1], [2, 1, 7, 8, 1]
    assert metrics.group_accuracy(true, predicted) == 0.25
    assert metrics.group_accuracy(true, predicted, tolerance=1) == 0.75
    assert math.isnan(metrics.group_accuracy([-1], [2]))


def test_confusion_matrix():
    matrix = metrics.confusion_matrix([0, 0, 2, -1, 0], [0, 1, 2, 2, 1], 3)
    assert matrix.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_reliability_and_calibration_by_hand():
    gender = [1, 1, 0, 0, NAN]
    male = [1.0, 0.95, 0.05, 0.55, 0.9]  # confidences 1, .95, .95 (all right), .55 (wrong)
    table = metrics.reliability_table(gender, male)
    assert table.n.tolist() == [1, 3]
    assert table.confidence_from.tolist() == pytest.approx([0.5, 0.9])
    assert table.confidence_to.tolist() == pytest.approx([0.6, 1.0])
    assert table.confidence.tolist() == pytest.approx([0.55, 2.9 / 3])
    assert table.accuracy.tolist() == [0, 1]
    # gaps: 0.55 once, 1 - 0.9667 three times
    assert metrics.expected_calibration_error(table) == pytest.approx((0.55 + 3 * (1 - 2.9 / 3)) / 4)


def test_calibration_over_nothing():
    assert math.isnan(metrics.expected_calibration_error(metrics.reliability_table([NAN], [0.7])))


def test_calibration_skips_rows_without_a_probability():
    """A gender head that was not trained predicts NaN."""
    assert metrics.reliability_table([1, 0], [0.9, NAN]).n.tolist() == [1]
    assert metrics.reliability_table([NAN, NAN], [NAN, NAN]).empty


def test_table_by_group():
    predictions = pd.DataFrame(
        {
            "age": [1, 5, 7, NAN],
            "gender": [0, 1, NAN, 1],
            "predicted_age": [2, 5, 17, 30],
            "male_probability": [0.2, 0.3, 0.8, 0.9],
        }
    )
    table = metrics.table_by_group(predictions, FAIRFACE.nearest(predictions.age), FAIRFACE.names)
    assert table.group.tolist() == ["0-2", "3-9", "all"]
    assert table.n.tolist() == [1, 2, 3]
    assert table.mae.tolist() == pytest.approx([1, 5, 11 / 3])
    assert table.bias.tolist() == pytest.approx([1, 5, 11 / 3])
    assert table.cs5.tolist() == pytest.approx([1, 0.5, 2 / 3])
    assert table.gender_accuracy.tolist() == [1, 0, 0.5]
    assert table.group_accuracy.isna().all()
    grouped = predictions.assign(age_group=[0, 1, 1, -1], predicted_group=[0, 1, 2, 4])
    table = metrics.table_by_group(grouped, grouped.age_group, FAIRFACE.names)
    assert table.group_accuracy.tolist() == pytest.approx([1, 0.5, 2 / 3])
    assert table.within_one_group.tolist() == [1, 1, 1]


def test_table_of_rows_without_an_age():
    predictions = pd.DataFrame({"age": [NAN], "gender": [1.0], "predicted_age": [30.0], "male_probability": [0.7]})
    table = metrics.table_by_group(predictions, np.array([1]), ("female", "male"))
    assert table.group.tolist() == ["male", "all"]
    assert table.mae.isna().all()
    assert table.gender_accuracy.tolist() == [1, 1]
