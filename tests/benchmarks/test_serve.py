import numpy as np
import pytest

from benchmarks import serve
from marco_model import labels, load


@pytest.mark.long  # The model is exported by TensorFlow.
def test_every_way_to_a_model_names_the_same_classes(real_images, tmp_path):
    from marco_model import classifier, network

    shape = network.Network(variant="paper", input_size=151, depth_multiplier=0.25, auxiliary=False)
    folder = tmp_path / "model"
    classifier.export(
        network.build(shape, num_classes=4, seed=1), str(folder), classes=labels.CLASSES, input_size=151, metadata={}
    )
    encoded = [path.read_bytes() for path in real_images.values()]
    scores = load.open_classifier(folder).score(encoded)
    expected = [labels.CLASSES[index] for index in np.argmax(scores, axis=1)]
    served, exported = serve.open_server(folder), serve.open_signature(folder)
    assert list(served(encoded)) == list(exported(encoded)) == expected
    assert list(served(encoded[:1])) == expected[:1]
    own, other = serve.medians(served, exported, [encoded[:1]], 2)
    assert own > 0
    assert other > 0
