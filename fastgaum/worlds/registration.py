"""`fastgaum/User-v0` in Gymnasium's registry, whichever of the two packages is imported first.

Gymnasium had plugin entry points until 0.29; 1.0 removed them, and a package now registers when it
is imported. Importing gymnasium for that would cost `import fastgaum` numpy and a third of a
second, so it waits: a finder notices gymnasium's own import and registers right after it. Where
fastgaum is not imported, `gymnasium.make("fastgaum:fastgaum/User-v0")` does it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ENV_ID = "fastgaum/User-v0"


def register() -> None:
    """Put the environment into Gymnasium's registry, once."""
    import gymnasium

    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            ENV_ID,
            entry_point="fastgaum.worlds.single_env:UserEnv",
            vector_entry_point="fastgaum.worlds.vector_env:UserVectorEnv",
        )


def register_when_imported() -> None:
    """Register now if gymnasium is imported, otherwise as soon as it is."""
    if "gymnasium" in sys.modules:
        register()
    elif not any(isinstance(finder, _Notice) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Notice())


class _Notice:
    """Finds nothing itself: lets the others find gymnasium and adds a line to its execution."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find gymnasium as the other finders do, registering after its import; None for all other
        modules."""
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                register()

            loader.exec_module = execute_and_register
        return spec
