"""How a run finds the model that it must beat, from its configuration and its places."""

from __future__ import annotations

import dataclasses

from components.gate.lookup import Lookup
from components.gate.signature import digest
from pipelines.configuration import Configuration
from pipelines.places import Places


def lookup(configuration: Configuration, places: Places, image: str = "") -> Lookup:
    """Returns what the look-up is told.

    Its settings are all that makes a training another one (data and weights are told by their fingerprints), and where
    steps are kept to be reused: the same training in another place is another run, and has the champion to beat.
    `image`: the container's, which is part of that too.
    """
    settings = {
        "data": configuration.data.model_dump(mode="json", exclude={"source", "synthetic"}),
        "labels": configuration.labels.model_dump(mode="json"),
        "transform": configuration.transform.model_dump(mode="json"),
        "network": dataclasses.asdict(configuration.network),
        "recipe": dataclasses.asdict(configuration.recipe),
        "engine": dataclasses.asdict(configuration.engine),
        "tuning": dataclasses.asdict(configuration.tuning) if configuration.tuning else None,
        "export": configuration.export.model_dump(mode="json"),
        "kept": [configuration.name, places.root, image],
    }
    return Lookup(
        champion=configuration.gate.champion,
        tracking=places.tracking,
        model_name=configuration.model_name,
        settings=digest(settings),
    )
