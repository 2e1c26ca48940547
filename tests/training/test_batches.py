import numpy as np
import pandas as pd
import pytest

from src import images
from src.cli import UserError
from src.training.config import AugmentConfig, TargetConfig
from src.training.generator import BatchSettings, ImageSequence

NAN = float("nan")


def make_table(count=10, side=8, **columns):
    """Images inside the table, whose grey level is ten times the row's number, and ages that are its number."""
    table = pd.DataFrame(
        {
            "path": [f"faces.mat[{row}]" for row in range(count)],
            "gender": [float(row % 2) for row in range(count)],
            "age": [float(row) for row in range(count)],
            "margin": 0.4,
            "image": [np.full((side, side, 3), 10 * row, np.uint8) for row in range(count)],
        }
    )
    return table.assign(**columns)


def make_maker(table=None, augment=None, target=None, workers=0, **changes):
    """A sequence of batches of 4 images of 4 x 4 pixels; `changes` are fields of `BatchSettings`."""
    settings = BatchSettings(**{"img_size": 4, "batch_size": 4, "margin": 0.4, **changes})
    return ImageSequence(make_table() if table is None else table, settings, augment, target, workers)


def ages_of(batch):
    return batch.targets[1].argmax(axis=1).tolist()


def equal(left, right):
    return all(
        np.array_equal(a, b)
        for a, b in zip(
            [left.images, *left.targets, *left.weights], [right.images, *right.targets, *right.weights], strict=True
        )
    )


# -------------------------------------------------------------------------------------------------------------- plain


def test_plain_batches_stand_in_order_and_the_short_last_one_counts():
    maker = make_maker()
    assert len(maker) == 3
    batches = [maker.make(0, index) for index in range(3)]
    assert [ages_of(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2].images.shape == (2, 4, 4, 3)
    assert batches[2].images.dtype == np.uint8
    assert batches[2].images[:, 0, 0, 0].tolist() == [80, 90]
    np.testing.assert_array_equal(batches[2].targets[0], [[1, 0], [0, 1]])
    assert [value.dtype for value in batches[0].targets + batches[0].weights] == [np.float32] * 4
    assert equal(maker.make(7, 1), batches[1])  # every epoch alike


def test_plain_image_is_the_cut_of_the_evaluation(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (91, 73, 3), dtype=np.uint8)
    images.write_image(tmp_path / "a.png", image)
    table = pd.DataFrame({"path": [str(tmp_path / "a.png")], "gender": [0.0], "age": [1.0], "margin": [0.4]})
    expected = images.resize(images.crop_to_margin(image, 0.4, 0.1), 32)
    np.testing.assert_array_equal(make_maker(table, img_size=32, margin=0.1).make(0, 0).images[0], expected)
    # Augmentation that draws nothing gives the same.
    maker = make_maker(table, img_size=32, margin=0.1, augment=AugmentConfig())
    np.testing.assert_array_equal(maker.make(0, 0).images[0], expected)
    flipping = make_maker(table, img_size=32, margin=0.1, augment=AugmentConfig(flip_probability=1))
    np.testing.assert_array_equal(flipping.make(0, 0).images[0], expected[:, ::-1])


def test_disabled_augmentation_is_plain():
    augment = AugmentConfig(enabled=False, mixup_alpha=1, flip_probability=1)
    assert equal(make_maker(augment=augment).make(0, 0), make_maker().make(0, 0))


@pytest.mark.parametrize("shape", [(91, 73), (90, 72), (40, 301)])
def test_augmentation_cuts_about_the_middle(shape):
    """A face at a crop of any parity stays in its place: geometry of almost nothing equals no geometry."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([255 * x / shape[1], 255 * y / shape[0], 0 * x], axis=2).astype(np.uint8)
    table = make_table(1, image=[image])
    plain = make_maker(table, img_size=16, margin=0.1).make(0, 0).images.astype(int)
    augment = AugmentConfig(geometry_probability=1, shift=1e-6)
    warped = make_maker(table, img_size=16, margin=0.1, augment=augment).make(0, 0).images.astype(int)
    assert np.abs(plain - warped).max() <= 3  # a pixel of the crop is 13 grey levels wide


# --------------------------------------------------------------------------------------------------------- randomness


def test_a_batch_larger_than_the_table_repeats_it():
    maker = make_maker(make_table(3), shuffle=True, batch_size=8)
    rows = maker.rows(0, 0).tolist()
    assert rows == (rows[:3] * 3)[:8]
    assert sorted(rows[:3]) == [0, 1, 2]


def test_the_shares_of_all_processes_are_the_batch_of_one():
    augment = AugmentConfig(geometry_probability=1, rotation=30, mixup_alpha=0)
    settings = {"augment": augment, "shuffle": True, "seed": 5}
    whole = make_maker(**settings)
    shares = [make_maker(**settings, share=(process, 2)) for process in range(2)]
    for index in range(len(whole)):
        batch = whole.make(1, index)
        parts = [maker.make(1, index) for maker in shares]
        assert [len(part.images) for part in parts] == [2, 2]
        np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), batch.images)
        np.testing.assert_array_equal(np.concatenate([part.targets[1] for part in parts]), batch.targets[1])


def test_processes_draw_their_own_mixup():
    augment = AugmentConfig(mixup_alpha=1.0)
    table = make_table(8).assign(age=50.0, image=[np.full((8, 8, 3), 30 * row, np.uint8) for row in (0, 4) * 4])
    parts = [make_maker(table, augment=augment, batch_size=8, share=(process, 2)).make(0, 0) for process in range(2)]
    assert not equal(*parts)


def test_the_last_short_batch_may_leave_processes_without_rows():
    sizes = [
        [len(make_maker(make_table(9), share=(process, 2)).make(0, index).images) for process in range(2)]
        for index in range(3)
    ]
    assert sizes == [[2, 2], [2, 2], [1, 0]]


def test_shuffling_is_a_new_order_of_all_rows_in_every_epoch():
    maker = make_maker(make_table(25), shuffle=True, seed=1)
    orders = [np.concatenate([maker.rows(epoch, index) for index in range(len(maker))]).tolist() for epoch in range(3)]
    assert all(sorted(order[:25]) == list(range(25)) for order in orders)
    assert all(order[25:] == order[:3] for order in orders)  # the last of 7 batches of 4 begins the epoch again
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != make_maker(make_table(25), shuffle=True, seed=2).rows(0, 0).tolist()


def test_a_batch_depends_on_seed_epoch_and_index_only():
    augment = AugmentConfig(
        geometry_probability=1, scale=0.2, brightness_contrast_probability=1, brightness=0.2, mixup_alpha=0.5
    )
    table = make_table(
        12, image=[np.random.default_rng(row).integers(0, 256, (9, 9, 3), np.uint8) for row in range(12)]
    )
    settings = {"augment": augment, "shuffle": True, "img_size": 8, "batch_size": 4}
    maker = make_maker(table, seed=5, **settings)
    batches = {(epoch, index): maker.make(epoch, index) for epoch in range(2) for index in range(3)}
    other = make_maker(table, seed=5, **settings)
    for (epoch, index), batch in reversed(batches.items()):
        assert equal(other.make(epoch, index), batch)
    assert not equal(batches[0, 0], batches[1, 0])
    assert not equal(make_maker(table, seed=6, **settings).make(0, 0), batches[0, 0])


def test_a_row_is_changed_alike_wherever_it_stands():
    augment = AugmentConfig(brightness_contrast_probability=1, brightness=0.5)
    first = make_maker(augment=augment, shuffle=True, seed=3, batch_size=10)
    second = make_maker(augment=augment, seed=3, batch_size=10)
    np.testing.assert_array_equal(first.make(2, 0).images, second.make(2, 0).images[first.rows(2, 0)])


# ------------------------------------------------------------------------------------------------------ labels, mixup


def test_unknown_labels_weigh_nothing():
    table = make_table(4, gender=[0.0, NAN, 1.0, NAN], age=[NAN, 20.0, 30.0, NAN])
    batch = make_maker(table).make(0, 0)
    np.testing.assert_array_equal(batch.weights, [[1, 0, 1, 0], [0, 1, 1, 0]])
    assert np.isfinite(batch.targets[0]).all()
    np.testing.assert_allclose(batch.targets[1].sum(axis=1), 1, rtol=1e-6)


def test_class_weights_and_label_distribution_reach_the_batch():
    target = TargetConfig("gaussian", 3.0, age_class_weights=np.linspace(0, 2, 101))
    batch = make_maker(make_table(4, age=[0.0, 50.0, 100.0, NAN]), target=target).make(0, 0)
    np.testing.assert_allclose(batch.weights[1], [0, 1, 2, 0])
    assert batch.targets[1][1, 50] == pytest.approx(0.133, abs=0.001)  # 1 / (3 sqrt(2 pi))


def test_mixup_mixes_images_and_both_labels_alike():
    augment = AugmentConfig(mixup_alpha=1.0)
    batch = make_maker(make_table(10), augment=augment, batch_size=10).make(0, 0)
    # Grey level, age and gender of row k are 10 k, k and k mod 2, so all three tell the share.
    ages = batch.targets[1] @ np.arange(101)
    np.testing.assert_allclose(batch.images[:, 0, 0, 0], 10 * ages, atol=0.51)
    assert (np.abs(ages - np.round(ages)) > 0.01).sum() >= 5
    for row in range(10):
        parts = np.flatnonzero(batch.targets[1][row])
        male = sum(batch.targets[1][row, part] * (part % 2) for part in parts)
        assert batch.targets[0][row, 1] == pytest.approx(male, abs=1e-6)


def test_mixed_rows_take_the_lesser_weight():
    target = TargetConfig(age_class_weights=np.arange(101.0) + 1)
    batch = make_maker(target=target, augment=AugmentConfig(mixup_alpha=1.0), batch_size=10).make(0, 0)
    lesser = [np.flatnonzero(row).min() + 1 for row in batch.targets[1]]  # the class weight rises with the age
    np.testing.assert_array_equal(batch.weights[1], lesser)
    assert (np.count_nonzero(batch.targets[1], axis=1) == 2).sum() >= 5


def test_a_row_without_age_takes_no_age_from_the_training():
    table = make_table(8, age=[NAN, 1, NAN, 3, NAN, 5, NAN, 7])
    batch = make_maker(table, augment=AugmentConfig(mixup_alpha=1.0), batch_size=8).make(0, 0)
    np.testing.assert_array_equal(batch.weights[1], [0, 1] * 4)
    np.testing.assert_array_equal(batch.weights[0], np.ones(8))


def ranged_table() -> pd.DataFrame:
    table = make_table(8, age=[NAN, 1, NAN, 3, NAN, 5, NAN, NAN])
    table["age_min"] = [10, NAN, 20, NAN, 30, NAN, 40, NAN]
    table["age_max"] = [19, NAN, 29, NAN, 39, NAN, 49, NAN]
    return table


def test_exact_ages_and_ranges_in_one_batch():
    batch = make_maker(ranged_table(), target=TargetConfig(has_ranges=True), batch_size=8).make(0, 0)
    assert batch.targets[1].shape == (8, 303)
    np.testing.assert_array_equal(batch.weights[1], [1] * 7 + [0])
    assert np.flatnonzero(batch.targets[1][0]).tolist() == list(range(101 + 10, 101 + 20))
    assert np.flatnonzero(batch.targets[1][1]).tolist() == [1]


def test_mixup_keeps_the_shares_of_ages_and_ranges():
    augment = AugmentConfig(mixup_alpha=1.0)
    batch = make_maker(ranged_table(), augment=augment, target=TargetConfig(has_ranges=True), batch_size=8).make(0, 0)
    distribution, own, partner = np.split(batch.targets[1][:7], 3, axis=1)
    shares = distribution.sum(axis=1) + own.max(axis=1) + partner.max(axis=1)
    np.testing.assert_allclose(shares, 1, rtol=1e-6)
    assert (partner.max(axis=1) > 0).any()
    assert batch.weights[1][7] == 0


# ------------------------------------------------------------------------------------------------------------- errors


def test_an_image_that_vanishes_weighs_nothing(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        images.write_image(path, np.full((8, 8, 3), 50, np.uint8))
    table = make_table(3, path=[str(path) for path in paths]).drop(columns="image")
    maker = make_maker(table, augment=AugmentConfig(mixup_alpha=1.0))
    paths[1].unlink()
    batch = maker.make(0, 0)
    assert batch.unreadable == [(str(paths[1]), "No such file or directory")]
    np.testing.assert_array_equal(batch.weights, [[1, 0, 1], [1, 0, 1]])
    assert batch.images[[0, 2]].min() == 50  # not mixed with the black one


def test_a_margin_that_the_images_lack_is_refused():
    with pytest.raises(UserError, match=r"data\.margin must be in 0\.\.0\.1, .* got 0\.2"):
        make_maker(make_table(2, margin=[0.4, 0.1]), margin=0.2)


def test_whole_photographs_are_refused():
    with pytest.raises(UserError, match=r"cut the faces out with `python crop_faces\.py"):
        make_maker(make_table(2, margin=[0.4, NAN]))


def test_images_are_cut_around_the_box_that_the_table_knows(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    images.write_image(tmp_path / "a.png", image)
    box = {"left": [2.0, np.nan], "top": [10.0, np.nan], "right": [34.0, np.nan], "bottom": [42.0, np.nan]}
    table = pd.DataFrame({"path": [str(tmp_path / "a.png")] * 2, "gender": 0.0, "age": 30.0, "margin": 0.4, **box})
    batch = make_maker(table, img_size=32, batch_size=2, margin=0.0).make(0, 0)
    np.testing.assert_array_equal(batch.images[0], image[10:42, 2:34])  # the box itself
    np.testing.assert_array_equal(batch.images[1], images.resize(images.crop_to_margin(image, 0.4, 0.0), 32))


@pytest.mark.parametrize("augment", [None, AugmentConfig(flip_probability=0.5)])
def test_a_row_whose_box_lies_outside_its_image_gets_no_weight(tmp_path, augment):
    images.write_image(tmp_path / "a.png", np.full((60, 50, 3), 50, np.uint8))
    box = {"left": [2, 200], "top": [10, 100], "right": [34, 300], "bottom": [42, 200]}
    table = pd.DataFrame({"path": [str(tmp_path / "a.png")] * 2, "gender": 0.0, "age": 30.0, "margin": 0.4, **box})
    batch = make_maker(table, augment, img_size=32, batch_size=2, margin=0.0).make(0, 0)
    np.testing.assert_array_equal(batch.weights, [[1, 0], [1, 0]])
    ((name, reason),) = batch.unreadable
    assert name == str(tmp_path / "a.png")
    assert reason == "face box (200, 100, 300, 200) lies outside the image of 50 x 60 pixels"


def test_images_in_memory_and_in_files_side_by_side(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    images.write_image(tmp_path / "a.png", image)
    paths = ["b.mat[0]", str(tmp_path / "a.png")]
    arrays = pd.Series([255 - image, None], dtype=object)
    table = pd.DataFrame({"path": paths, "gender": 0.0, "age": 30.0, "margin": 0.0, "image": arrays})
    batch = make_maker(table, img_size=32, batch_size=2, margin=0.0).make(0, 0)
    np.testing.assert_array_equal(batch.images, [255 - image, image])
