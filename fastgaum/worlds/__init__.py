"""Worlds and their environments.

Importing this package registers `fastgaum/User-v0` with Gymnasium; the name
"fastgaum.worlds:fastgaum/User-v0" lets Gymnasium import it itself."""

from __future__ import annotations

import gymnasium

ENV_ID = "fastgaum/User-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point="fastgaum.worlds.single_env:UserEnv",
        vector_entry_point="fastgaum.worlds.vector_env:UserVectorEnv",
    )
