# SPDX-License-Identifier: Apache-2.0
"""Has the web pages built before any wheel is made, regular or editable (see web_build.py)."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WebBuildHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        building = self._building()
        return [] if building.npm_of_system() else [building.NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not os.environ.get("QUBIX_SKIP_WEB"):
            self._building().build(Path(self.root))

    def _building(self) -> ModuleType:
        """The folder of scripts is on nobody's path."""
        spec = importlib.util.spec_from_file_location("qubix_web_build", Path(self.root) / "scripts" / "web_build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
