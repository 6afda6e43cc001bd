import types

import pytest
import tensorflow as tf

from marco_model import engines
from marco_model.errors import InputError
from marco_model.recipe import Cluster


def test_several_gpus_of_an_asynchronous_worker_are_refused(monkeypatch):
    strategy = types.SimpleNamespace(num_replicas_in_sync=4)
    monkeypatch.setattr(tf.distribute, "ParameterServerStrategy", lambda resolver: strategy)
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TFConfigClusterResolver", lambda: None)
    with pytest.raises(InputError, match=r"a worker has 4 GPUs.*give each worker one GPU"):
        engines.ParameterServers(Cluster({"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}, "chief", 0))
