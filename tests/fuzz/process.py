"""One target under Atheris, which is libFuzzer for Python: `python -m tests.fuzz.process TARGET FOLDER [OPTIONS]`.

Coverage of the project's parsers and of Pillow's guides what is kept and changed further. A finding is
written to FOLDER/findings/TARGET under a name of its kind, the first of each kind alone, and the run goes on.
"""

import importlib
import random
import sys
from pathlib import Path
from typing import Any

INSTRUMENTED = ["marco_model", "marco_data", "marco_scoring", "components", "pipelines", "PIL"]


def main() -> None:
    """Fuzzes until libFuzzer's options say that it ends."""
    name, folder, *options = sys.argv[1:]
    import atheris

    from tests.fuzz import contract, targets

    target = targets.TARGETS[name]
    with atheris.instrument_imports(include=INSTRUMENTED):
        for module in target.modules:
            importlib.import_module(module)
    findings = Path(folder) / "findings" / name

    def run(data: bytes) -> None:
        kind, text = contract.violation(target, data)
        path = findings / kind
        if kind and not path.exists():
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(text)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if target.mutate is None or draw.random() < 0.2:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(data, draw)[:most]

    changes: dict[str, Any] = {"custom_mutator": mutate} if target.mutate else {}
    atheris.Setup([sys.argv[0], *options], run, **changes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
