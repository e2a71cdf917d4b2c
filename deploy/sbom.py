"""Lists what an image holds: the Python that runs this file, its packages, and every Debian package.

    python deploy/sbom.py > sbom.cdx.json

Writes CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/). Standard library only. It does not see libraries inside
wheels, such as FFmpeg in ``av``.
"""

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from typing import Any
from urllib.parse import quote

PRODUCT = "hiar-server"
_DPKG = ("dpkg-query", "--show", "--showformat", "${Package}\\t${Version}\\t${Architecture}\\n")


def main() -> None:
    """Write the list to stdout."""
    json.dump(bill(python_components(), debian_components(_dpkg())), sys.stdout, indent=1)


def bill(*groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Put groups of components together; the server itself is what they are parts of."""
    parts = sorted((part for group in groups for part in group), key=lambda part: part["purl"])
    product = next(part for part in parts if part["name"] == PRODUCT)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**product, "type": "application"}},
        "components": [part for part in parts if part is not product],
    }


def python_components() -> list[dict[str, Any]]:
    """This interpreter and what is installed in it, each once."""
    python = platform.python_version()
    found = {_normal(item.metadata["Name"]): item for item in distributions()}
    packages = [_python(name, item) for name, item in found.items()]
    return [_component("python", python, f"pkg:generic/python@{python}"), *packages]


def debian_components(listing: str) -> list[dict[str, Any]]:
    """Components of a ``dpkg-query`` listing: name, version and architecture, separated by tabs, one a line."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    rows = [line.split("\t") for line in listing.splitlines()]
    return [
        _component(name, version, f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}&distro={release}")
        for name, version, architecture in rows
    ]


def _python(name: str, item: Distribution) -> dict[str, Any]:
    licence = item.metadata.json.get("license_expression")
    part = _component(name, item.version, f"pkg:pypi/{name}@{quote(item.version)}")
    return {**part, "licenses": [{"expression": licence}]} if licence else part


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _normal(name: str) -> str:
    """The name as package URLs want it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _dpkg() -> str:
    return subprocess.run(_DPKG, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
