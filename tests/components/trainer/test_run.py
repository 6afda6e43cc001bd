import copy

from components.trainer.run import training_key

CONFIG = {
    "classes": ["Clear", "Crystals"],
    "network": {"variant": "paper"},
    "recipe": {"steps": 10},
    "transform": {"shorter_side": 0},
    "data": {"source": "a", "fingerprint": "1"},
    "tracking": {"uri": "sqlite:///x"},
}


def test_the_same_recipe_on_the_same_data_is_the_same_training():
    assert training_key(CONFIG, "graph/1") == training_key(copy.deepcopy(CONFIG), "graph/1")
    elsewhere = {**CONFIG, "tracking": {"uri": "http://server"}}
    assert training_key(CONFIG, "graph/1") == training_key(elsewhere, "graph/1")


def test_other_classes_recipe_network_or_data_are_another_training():
    keys = {training_key(CONFIG, "graph/1"), training_key(CONFIG, "graph/2")}
    for section, change in (
        ("classes", ["Crystals", "Clear"]),
        ("network", {"variant": "released"}),
        ("recipe", {"steps": 11}),
        ("data", {"source": "b"}),
    ):
        keys.add(training_key({**CONFIG, section: change}, "graph/1"))
    assert len(keys) == 6
