"""Synthetic drops of two imagers, their features in a small network with random weights, and references of both."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest

from tests import short_network

HOME, MERCK = "HWMRI / HWMRI home system", "Merck / Formulatrix Rock Imager"
SETTINGS = {"seed": 11, "shorter_side": 128, "institutions": {"HWMRI": 1.0, "Merck": 1.0}}


@pytest.fixture(scope="session")
def small_model(made_once):
    """The folder of a small exported network with random weights."""
    return made_once("small-model", _export_small_model)


def _export_small_model(folder):
    from marco_model.classifier import export
    from marco_model.labels import CLASSES
    from marco_model.network import Network, build

    network = Network(variant="paper", input_size=151, depth_multiplier=0.25, auxiliary=False)
    with short_network.cut():
        built = build(network, num_classes=4, seed=1)
    export(built, str(folder), classes=CLASSES, input_size=151, metadata={"name": "small"})


@pytest.fixture(scope="session")
def drops(made_once):
    """400 drops of two imagers: for each the imager, the class it shows and its JPEG."""
    return pickle.loads(made_once("drops", lambda path: path.write_bytes(pickle.dumps(_draw()))).read_bytes())


def _draw():
    from marco_data.synthetic.plan import Settings, plan
    from marco_data.synthetic.writer import jpegs

    settings = Settings(**SETTINGS)
    plans = [plan(settings, index) for index in range(400)]
    encoded = [jpeg for jpeg, _, _ in jpegs(list(range(400)), settings, 2)]
    return [
        (f"{drop.imager.institution} / {drop.imager.name}", drop.shown, jpeg)
        for drop, jpeg in zip(plans, encoded, strict=True)
    ]


class Pool:
    """Drops as tables: the network's features, and made-up scores of a classifier that is right 85 times in 100.

    The published classifier has that accuracy on such drops (docs/monitoring.md), but takes too long here.
    """

    def __init__(self, drops, model):
        from marco_model.load import open_classifier

        self._drops = drops
        self._classifier = open_classifier(model)
        self.labels = np.array([label for _, label, _ in drops])
        rng = np.random.default_rng(5)
        predicted = np.where(rng.random(len(drops)) < 0.85, self.labels, rng.integers(0, 4, len(drops)))
        certain = rng.beta(6, 2, len(drops))[:, None]
        self._scores = (certain * np.eye(4)[predicted] + (1 - certain) * rng.dirichlet([1] * 4, len(drops))).astype("f")
        encoded = [jpeg for *_, jpeg in drops]
        self.all = self._table(np.arange(len(drops)), encoded, self._embed(encoded))

    def _embed(self, encoded):
        return np.concatenate([self._classifier.embed(encoded[at : at + 64]) for at in range(0, len(encoded), 64)])

    def _table(self, rows, encoded, embedding):
        from components.monitoring.statistics import Table, image_statistics

        return Table(
            imager=np.array([self._drops[row][0] for row in rows], object),
            name=np.array([str(row) for row in rows], object),
            statistics=np.array([image_statistics(jpeg) for jpeg in encoded]),
            embedding=embedding,
            scores=self._scores[rows],
            thumbnail=np.array([b""] * len(rows), object),
        )

    def apply(self, rows, change):
        """Returns the table of the drops `rows` after `change`, a function of uint8 [h, w, 3]."""
        pixels = [cv2.imdecode(np.frombuffer(self._drops[row][2], np.uint8), cv2.IMREAD_COLOR) for row in rows]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
        encoded = [cv2.imencode(".jpg", change(image), quality)[1].tobytes() for image in pixels]
        return self._table(rows, encoded, self._embed(encoded))

    def reference(self, rows):
        """A reference of the drops `rows`."""
        from components.monitoring.drift import make_reference
        from components.monitoring.measure import Measured

        classes = ["Clear", "Crystals", "Other", "Precipitate"]
        model = {"name": "small", "fingerprint": "1", "classes": classes}
        return make_reference(Measured(self.all.take(rows), {}, []), model)

    def with_imager(self, table, imager):
        """Returns the table as if `imager` had taken its images."""
        return dataclasses.replace(table, imager=np.array([imager] * len(table), object))


@pytest.fixture(scope="session")
def pool(drops, small_model):
    return Pool(drops, small_model)
