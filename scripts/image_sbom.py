"""Writes what is installed in the image as CycloneDX: the packages of Debian and of Python (`make sbom-image`).

With `--list`, in the image, it prints them as JSON and needs nothing but Python. With two files, on the machine that
made the image, it turns that JSON into a bill of materials, checks it against CycloneDX's schema and writes it. That
needs cyclonedx-python-lib.
"""

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

_FIELDS = ("db:Status-Status", "Package", "Version", "Architecture")


def installed() -> dict[str, Any]:
    """Returns the packages of this system: `debian` and `python`, each by name, version and architecture."""
    debian: list[list[str]] = []
    if shutil.which("dpkg-query"):
        form = "\\t".join(f"${{{field}}}" for field in _FIELDS) + "\\n"
        done = subprocess.run(["dpkg-query", "--show", f"--showformat={form}"], capture_output=True, check=True)
        rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
        debian = sorted(row[1:] for row in rows if row[0] == "installed")
    found = {(item.metadata["Name"].lower(), item.version) for item in importlib.metadata.distributions()}
    system = platform.freedesktop_os_release()
    return {
        "system": f"{system['ID']}-{system.get('VERSION_ID', '')}".rstrip("-"),
        "debian": debian,
        "python": sorted([name, version, ""] for name, version in found),
    }


def bill(packages: dict[str, Any], name: str) -> str:
    """Returns the CycloneDX document of packages, equal for equal ones; raises `ValueError` if it is not valid."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL

    distribution = packages["system"].partition("-")[0]
    made: list[Component] = []
    for kind, space, entries in (("deb", distribution, packages["debian"]), ("pypi", None, packages["python"])):
        for package, version, architecture in entries:
            qualifiers = {"arch": architecture, "distro": packages["system"]} if architecture else None
            url = PackageURL(kind, space, package, version, qualifiers)
            made.append(
                Component(type=ComponentType.LIBRARY, name=package, version=version, purl=url, bom_ref=url.to_string())
            )
    document = Bom(components=made, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(packages)))
    document.metadata.component = Component(type=ComponentType.CONTAINER, name=name, bom_ref=name)
    content = json.loads(JsonV1Dot6(document).output_as_string())
    del content["metadata"]["timestamp"]
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"not CycloneDX: {problem}")
    return text


def main(arguments: list[str]) -> None:
    """Lists, or writes a bill of materials."""
    if arguments == ["--list"]:
        json.dump(installed(), sys.stdout)
        return
    packages = json.loads(Path(arguments[0]).read_text())
    Path(arguments[1]).write_text(bill(packages, arguments[2]))
    print(f"{arguments[1]}: {len(packages['debian'])} packages of Debian, {len(packages['python'])} of Python")


if __name__ == "__main__":
    main(sys.argv[1:])
