"""The first step on a cluster: fingerprints the data of this run, which a schedule may have started, and looks up the
champion.

It is never cached. Its outputs are parameters of the following steps, and so part of their cache keys: unchanged data
are not ingested again. It is a plain command, not a TFX component, since its outputs are parameters and not artifacts.
"""

import argparse
import json
import pathlib
import tempfile

from components.champion import Lookup, signature
from components.example_gen import files
from components.trainer.job import parse_steps
from marco_data import shards, synthetic
from marco_model import errors, store, weights

OUTPUTS = ("source", "fingerprint", "initial", "champion", "signature")


def describe(source: str, initial: str, drawn: dict | None, place: str, overlay: str = "") -> dict[str, str]:
    """Returns `source`, where the shards are, their `fingerprint`, and that of the weights that `initial` names.

    If `source` is empty, `drawn` (`images`, and the fields of `marco_data.synthetic.Settings`) is a set drawn into
    `place`, a folder of its own on a volume or on `gs://`, unless it is there already. The fingerprint includes the
    file `overlay` of answers (docs/relabelling.md), if there is one.

    Raises `InputError` if there are no data, or no model to begin from.
    """
    if not source and drawn:
        settings = dict(drawn)
        _draw(place, settings.pop("images"), synthetic.Settings(**settings))
    source = source or place
    return {
        "source": source,
        "fingerprint": shards.fingerprint([source], overlay),
        "initial": weights.initial_fingerprint(initial),
    }


def _draw(place: str, images: int, settings: synthetic.Settings) -> None:
    if not store.is_object(place):
        synthetic.synthesize(pathlib.Path(place), images, settings, overwrite=True)
        return
    manifest = f"{place}/{synthetic.MANIFEST}"
    if store.exists(manifest) and json.loads(store.read_bytes(manifest)) == synthetic.manifest_of(images, settings):
        return
    files.delete_tree(place)
    with tempfile.TemporaryDirectory() as folder:
        drawn = pathlib.Path(folder) / "drawn"
        synthetic.synthesize(drawn, images, settings)
        # The manifest comes last: where it is, everything is.
        for path in sorted(drawn.iterdir(), key=lambda path: path.name == synthetic.MANIFEST):
            store.upload(path, f"{place}/{path.name}")


def main(arguments: list[str] | None = None) -> None:
    """Writes each output into the file that the launcher names; `champion` and `signature`: `components.champion`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="shards; empty: those in --place")
    parser.add_argument("--place", required=True, help="folder of the data if --source is empty")
    parser.add_argument("--synthetic", required=True, help="JSON: the set to draw into --place, or null")
    parser.add_argument("--initial", required=True, help="the weights that training begins from")
    parser.add_argument("--overlay", default="", help="CSV of labels that experts gave (docs/relabelling.md)")
    parser.add_argument("--lookup", required=True, help="JSON: fields of components.champion.Lookup")
    parser.add_argument("--steps", required=True, help="steps of training; empty: the recipe's")
    for name in OUTPUTS:
        parser.add_argument(f"--{name}-file", required=True, help=f"where {name} is written")
    options = parser.parse_args(arguments)
    parse_steps(options.steps)
    outputs = describe(options.source, options.initial, json.loads(options.synthetic), options.place, options.overlay)
    lookup = Lookup.model_validate_json(options.lookup)
    own = signature(lookup.settings, outputs["fingerprint"], outputs["initial"], options.steps)
    outputs |= {"champion": lookup.to_beat(own), "signature": own}
    for name, value in outputs.items():
        file = pathlib.Path(getattr(options, f"{name}_file"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
        print(f"{name}: {value}")


if __name__ == "__main__":
    with errors.exit_status():
        main()
