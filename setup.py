"""Which packages the server's wheel has; the rest is in pyproject.toml.

Two folders of the checkout hold files that are served and no code. The wheel has them inside the package ``server``, so
that only ``server``, ``engine`` and ``kernels`` become names in site-packages. ``server/shipped.py`` finds them.
"""

import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

OURS = ("server", "engine", "kernels")
FOLDERS = {"server.models.tiny": "models/tiny", "server.clients.player": "clients/player"}


class FreshBuild(build_py):
    """Begins with an empty folder: whatever an earlier build left there would get into the wheel too."""

    def run(self) -> None:
        """Copy what belongs into the wheel."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    packages=[*find_packages(include=[pattern for name in OURS for pattern in (name, f"{name}.*")]), *FOLDERS],
    package_dir=FOLDERS,
    cmdclass={"build_py": FreshBuild},
)
