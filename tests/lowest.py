"""Print a pip constraint for each dependency at the lowest version that pyproject.toml claims:
`make lowest` installs these."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(
    r"(?P<name>[\w-]+)(\[[\w,-]+\])?>=(?P<lowest>[\d.]+)(,<[\d.]+)?(; sys_platform [!=]= '\w+')?"
)
EXTRAS = ("test", "baselines", "plots", "rl", "serve")
"""what `make lowest` installs: all that the tests import. Linters and documentation are not the
package."""


def lowest(requirements: list[str]) -> dict[str, str]:
    """Name and lowest version of each requirement. Raises ValueError for one that has no lower
    bound."""
    found = {}
    for requirement in requirements:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(
                f"a dependency is 'name>=lowest', got {requirement!r} in pyproject.toml"
            )
        found[match["name"]] = match["lowest"]
    return found


if __name__ == "__main__":
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    everything = [
        *project["dependencies"],
        *(one for name in EXTRAS for one in project["optional-dependencies"][name]),
    ]
    print(*(f"{name}=={version}" for name, version in lowest(everything).items()), sep="\n")
