"""The configuration: what is accepted, and one line for what is not."""

import pytest
from omegaconf import OmegaConf

from src.cli import ROOT, UserError
from src.training.config import AugmentConfig, Config, differences, flatten


@pytest.fixture
def check(compose):
    """`check({key: value})`: checks the shipped configuration with these changes."""

    def check_changed(changes: dict) -> Config:
        cfg = compose()
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value, force_add=True)
        return Config.check(cfg)

    return check_changed


def test_shipped_config_is_accepted(check):
    augment = check({}).augment
    assert (augment.shift, augment.scale, augment.rotation) == (1 / 32, 0.2, 20)
    assert (augment.brightness, augment.contrast) == (0.2, 0.2)
    assert augment.erasing_area == (0.02, 0.4)


def test_shipped_config_names_every_key():
    shipped = OmegaConf.to_container(OmegaConf.load(ROOT / "src" / "config.yaml"))
    known = {section: list(field.annotation.model_fields) for section, field in Config.model_fields.items()}
    assert {section: list(shipped[section]) for section in known} == known
    assert set(shipped) - set(known) == {"defaults", "hydra"}


def test_no_change_is_the_default_of_augmentation():
    augment = AugmentConfig()
    assert not [name for name in AugmentConfig.model_fields if name.endswith("probability") and getattr(augment, name)]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("augment.flipp", 0.5, "augment.flipp is not a key of src/config.yaml"),
        ("augment.flip_probability", 1.5, "augment.flip_probability must be <= 1, got 1.5"),
        ("augment.flip_probability", True, "augment.flip_probability must be a number, got True"),
        ("augment.flip_probability", "often", "must be a number, got 'often'"),
        ("augment.flip_probability", None, "got None"),
        ("augment.flip_probability", float("nan"), "must be a finite number, got nan"),
        (
            "augment.jpeg_quality",
            [90, 30],
            "jpeg_quality must be two ascending numbers in 1..100, got [90, 30]",
        ),
        ("augment.jpeg_quality", [30, 101], "must be two ascending numbers in 1..100"),
        ("augment.jpeg_quality", 30, "must be two ascending numbers"),
        ("augment.jpeg_quality", "39", "must be two ascending numbers"),
        ("augment.jpeg_quality", [1, 2, 3], "must be two ascending numbers"),
        ("augment.enabled", "no", "augment.enabled must be true or false, got 'no'"),
        ("model.img_size", 0, "model.img_size must be >= 1, got 0"),
        ("model.img_size", 1025, "model.img_size must be <= 1024, got 1025"),
        ("train.seed", 2**32, "train.seed must be < 4294967296, got 4294967296"),
        ("data.db", "\udcff.csv", "data.db must be UTF-8, got '\\udcff.csv'; rename the file"),
        ("data.db", ["utkface", "\udcff.csv"], "data.db must be UTF-8, got ['utkface', '\\udcff.csv']"),
        ("model.img_size", "big", "model.img_size must be a whole number, got 'big'"),
        ("train.lr", -1, "train.lr must be >= 0, got -1"),
        ("train.epochs", 2.5, "train.epochs must be a whole number, got 2.5"),
        ("train.optimizer_name", "lion", "train.optimizer_name must be sgd, adam or adamw, got 'lion'"),
        ("train.schedule", "linear", "train.schedule must be step, cosine or constant, got 'linear'"),
        ("train.ema", 1, "train.ema must be < 1, got 1"),
        ("train.steps_per_epoch", 0, "train.steps_per_epoch must be >= 1 or null, got 0"),
        ("train.age_class_weights", 2, "train.age_class_weights must be <= 1, got 2"),
        ("train.devices", 0, "train.devices must be auto or >= 1, got 0"),
        ("train.devices", "all", "train.devices must be auto or a whole number, got 'all'"),
        ("train.resume", 3, "train.resume must be true or false or text, got 3"),
        ("model.model_name", "MobileNetV9", "MobileNetV2"),
        ("data.db", [1], "data.db must be text, got [1]"),
        ("data.db", [], "data.db must be text or a list of at least 1, got []"),
        ("wandb", None, "wandb must have the keys that it has in src/config.yaml, got None"),
        ("augment", False, "augment must have the keys that it has in src/config.yaml, got False"),
        ("extra", 1, "extra is not a key of src/config.yaml"),
        ("distributed.mode", "maybe", "distributed.mode must be off, on or auto, got 'maybe'"),
        ("distributed.processes", 0, "distributed.processes must be >= 1, got 0"),
        ("distributed.processes", 2.5, "distributed.processes must be a whole number, got 2.5"),
        ("distributed.processes", True, "must be a whole number, got True"),
        ("distributed.processes", None, "must be a whole number, got None"),
        ("distributed.process_id", -1, "distributed.process_id must be >= 0, got -1"),
        ("distributed.coordinator", "10.0.0.1", "must be HOST:PORT, where process 0 can be reached or null, got '10.0"),
        ("distributed.coordinator", "10.0.0.1:99999", "must be HOST:PORT"),
        ("distributed.coordinator", ":4321", "must be HOST:PORT"),
        ("distributed.coordinator", "host:port", "must be HOST:PORT"),
    ],
)
def test_wrong_values_are_one_line(check, key, value, message):
    with pytest.raises(UserError) as caught:
        check({key: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["train.lr", "data.db", "wandb"])
def test_deleted_keys_are_one_line(compose, key):
    cfg = compose(f"~{key}")
    with pytest.raises(UserError, match=f"^{key} must have a value, got none"):
        Config.check(cfg)


def test_a_deleted_key_that_another_refers_to_is_one_line(compose):
    with pytest.raises(UserError, match=r"^Interpolation key 'model\.batch_size' not found$"):
        Config.check(compose("~model.batch_size"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 2, "process_id": 2}, "distributed.process_id must be < 2, got 2"),
        ({"process_id": 1}, "distributed.process_id must be < 1, got 1"),
        ({"processes": 2}, "distributed.coordinator must be HOST:PORT, where process 0 can be reached, got None"),
    ],
)
def test_places_that_do_not_exist(check, given, message):
    with pytest.raises(UserError) as caught:
        check({"distributed.mode": "on"} | {f"distributed.{key}": value for key, value in given.items()})
    assert message in str(caught.value)


@pytest.mark.parametrize("given", [{"processes": 2}, {"process_id": 1}, {"coordinator": "10.0.0.1:4321"}])
def test_places_without_a_mode(check, given):
    given = {f"distributed.{key}": value for key, value in given.items()}
    with pytest.raises(UserError, match="^distributed.mode must be on .*, got off; "):
        check(given)


def test_keys_of_distributed_that_mode_auto_ignores(check):
    with pytest.raises(UserError, match="^distributed.mode must be on .*, got auto; "):
        check({"distributed.mode": "auto", "distributed.processes": 2})
    assert check({"distributed.mode": "auto", "distributed.coordinator": "10.0.0.1:4321"})


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_needs_adamw(check, optimizer):
    given = {"train.weight_decay": 0.01, "train.optimizer_name": optimizer}
    with pytest.raises(UserError) as caught:
        check(given)
    assert str(caught.value) == f"train.optimizer_name must be adamw with train.weight_decay=0.01, got {optimizer}"
    assert check(given | {"train.optimizer_name": "adamw"}).train.weight_decay == 0.01


def test_tilde_is_the_home_folder(check, monkeypatch):
    monkeypatch.setenv("HOME", "/home/zoë")
    monkeypatch.setenv("USERPROFILE", "/home/zoë")
    data = check({"data.db": ["imdb", "~/t.csv"], "data.image_dir": [None, "~/faces"]}).data
    assert (data.db, data.image_dir) == (["imdb", "/home/zoë/t.csv"], [None, "/home/zoë/faces"])


def test_what_may_change_on_resume(check):
    before = check({}).dump()
    same = {
        "train.epochs": 99,
        "train.workers": 0,
        "train.devices": 2,
        "wandb.project": "x",
        "distributed.mode": "on",
        "distributed.processes": 4,
        "distributed.coordinator": "10.0.0.1:4321",
    }
    assert differences(before, check(same).dump()) == {}
    other = {"train.lr": 0.5, "augment.gamma": [0.7, 2.0], "data.db": "wiki"}
    found = differences(before, check(other).dump())
    assert list(found) == ["augment.gamma", "data.db", "train.lr"]
    assert found["train.lr"] == (0.001, 0.5)


def test_what_each_process_may_have_its_own_of(check):
    own = {"distributed.process_id": 0, "data.image_dir": "x", "train.workers": 7, "train.checkpoint_dir": "y"}
    assert check(own).shared() == check({}).shared()
    assert check({"train.epochs": 7}).shared() != check({}).shared()


def test_flat_keys():
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": [2]}) == {"a.b": 1, "a.c.d": None, "e": [2]}
