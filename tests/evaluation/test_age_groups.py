import numpy as np
import pandas as pd

from src.evaluation.age_groups import FAIRFACE, AgeGroups, choose_groups, label_range

NAN = float("nan")
ADIENCE = ((0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))


def table(ranges, ages=()):
    rows = [(NAN, first, last) for first, last in ranges] + [(age, NAN, NAN) for age in ages]
    return pd.DataFrame(rows, columns=["age", "age_min", "age_max"])


def test_names():
    assert FAIRFACE.names == ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")


def test_age_groups_are_half_open():
    ages = [0, 2.99, 3, 9.5, 10, 19, 20, 69.9, 70, 100, 116, NAN, -1]
    assert FAIRFACE.nearest(ages).tolist() == [0, 0, 1, 1, 2, 2, 3, 7, 8, 8, 8, -1, -1]


def test_ages_between_groups_count_as_the_nearer_one():
    groups = AgeGroups(((4, 6), (8, 12), (60, 100)))
    # between 6 (which ends at 7) and 8 the border is 7.5, between 12 and 60 it is 36.5
    assert groups.nearest([0, 6.9, 7.4, 7.5, 36.4, 36.5, 99]).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_a_range_belongs_to_the_group_that_holds_all_of_it():
    first, last = [3, 3, 0, 25, 70, NAN, 9, 9.5], [9, 10, 2, 32, 100, NAN, 9, 9.5]
    assert FAIRFACE.containing(first, last).tolist() == [1, -1, 0, -1, 8, -1, 1, 1]
    assert AgeGroups(((4, 6), (8, 12))).containing([0, 7, 5, 8], [2, 7, 5, 12]).tolist() == [-1, -1, 0, 1]


def test_ranges_of_labels():
    first, last = label_range(table([(3, 9)], [25.5]))
    np.testing.assert_array_equal(first, [3, 25.5])
    np.testing.assert_array_equal(last, [9, 25.5])
    np.testing.assert_array_equal(label_range(pd.DataFrame({"age": [4.0]}))[1], [4])


def test_groups_are_fairfaces_unless_the_table_has_others():
    assert choose_groups(pd.DataFrame({"age": [4.0]})) == FAIRFACE
    assert choose_groups(table([], [4.0])) == FAIRFACE
    assert choose_groups(table([(3, 9), (10, 19)] * 3, [25, 30])) == FAIRFACE
    strays = [(38, 42), (27, 32), (38, 48), (8, 23)]
    assert choose_groups(table([*ADIENCE * 5, *strays], [35, 13])).ranges == ADIENCE
