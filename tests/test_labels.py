import numpy as np

from src import labels


def test_order_and_classes():
    assert labels.GENDERS[labels.FEMALE] == "female"
    assert labels.GENDERS[labels.MALE] == "male"
    assert labels.AGE_CLASSES == 101


def test_ages_above_100_count_as_100():
    ages = labels.clip_age(np.array([0.0, 99, 100, 101, 116, np.nan]))
    np.testing.assert_array_equal(ages, [0, 99, 100, 100, 100, np.nan])


def test_expected_age_by_hand():
    probabilities = np.zeros((2, 101), np.float32)
    probabilities[0, [10, 30]] = 0.25, 0.75  # 2.5 + 22.5
    probabilities[1, 100] = 1
    np.testing.assert_allclose(labels.expected_age(probabilities), [25, 100])
