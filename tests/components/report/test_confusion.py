import numpy as np
import pytest
import sklearn.metrics

from components.report.numbers import confusion
from marco_model.labels import CLASSES

TABLE_IV = """
Crystals 91.0 5.8 1.7 1.5
Precipitate 0.8 96.1 2.3 0.7
Clear 0.2 1.8 97.9 0.2
Other 4.8 19.7 5.9 69.6
"""
"""As printed in the paper: one row per true class, predicted as Crystals, Precipitate, Clear, Other."""


def test_rows_and_columns_are_those_of_table_iv_with_the_papers_figures_beside_ours(predictions):
    table = predictions(400)
    labels = table["label"].to_numpy(int)
    predicted = np.stack(list(table["scores"])).argmax(axis=1)
    table_iv = confusion(labels, predicted, CLASSES)
    names = [line.split()[0] for line in TABLE_IV.split("\n") if line]
    printed = np.array([[float(value) for value in line.split()[1:]] for line in TABLE_IV.split("\n") if line])
    order = [CLASSES.index(name) for name in names]
    counts = sklearn.metrics.confusion_matrix(labels, predicted, labels=order)
    shares = sklearn.metrics.confusion_matrix(labels, predicted, labels=order, normalize="true")
    assert table_iv["columns"] == [row["name"] for row in table_iv["rows"]] == names
    for at, row in enumerate(table_iv["rows"]):
        assert row["count"] == counts[at].sum()
        assert [cell["predicted"] for cell in row["cells"]] == names
        assert [cell["count"] for cell in row["cells"]] == counts[at].tolist()
        assert [cell["share"] for cell in row["cells"]] == pytest.approx(shares[at], abs=1e-6)
        assert [100 * cell["paper"] for cell in row["cells"]] == pytest.approx(printed[at])
        assert [100 * cell["difference"] for cell in row["cells"]] == pytest.approx(100 * shares[at] - printed[at])


def test_other_classes_have_no_paper_figures_and_a_class_without_images_has_no_shares():
    table_iv = confusion(np.array([0, 0]), np.array([0, 1]), ["Hit", "Miss"])
    assert table_iv["columns"] == ["Hit", "Miss"]
    hit, miss = table_iv["rows"]
    assert [cell["share"] for cell in hit["cells"]] == [0.5, 0.5]
    assert [(cell["share"], cell["paper"], cell["difference"]) for cell in miss["cells"]] == [(None, None, None)] * 2
