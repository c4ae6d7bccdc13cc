"""The learned user as a world: populations of users that are shown slates and choose from them.

Importing this package registers `fastgaum/User-v0` with Gymnasium. The name
"fastgaum.worlds:fastgaum/User-v0" lets Gymnasium import it itself. `import fastgaum` alone
registers nothing, because it would cost the import of Gymnasium."""

from __future__ import annotations

import gymnasium

ENV_ID = "fastgaum/User-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point="fastgaum.worlds.single_env:UserEnv",
        vector_entry_point="fastgaum.worlds.vector_env:UserVectorEnv",
    )
