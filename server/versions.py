"""Versions of installed distributions."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """Of a distribution; "not installed" where a checkout runs without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
