"""What pyproject.toml says the package needs is what its code imports: nothing more, nothing less,
each with a lower bound."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib

import pytest

from tests.lowest import EXTRAS, PYPROJECT, lowest
from tests.test_house import IMPORTS, top_of

PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
IMPORT_NAMES = {
    "tomli-w": "tomli_w",
    "stable-baselines3": "stable_baselines3",
    "sb3-contrib": "sb3_contrib",
    "mlflow-skinny": "mlflow",
    "pytest-benchmark": "pytest_benchmark",
    "xgboost-cpu": "xgboost",
    "scikit-learn": "sklearn",
}
FOR_USERS = {"sb3_contrib"}
"""not imported by the package: agents for its users, which tests train"""
BROUGHT = {"llvmlite", "sklearn"}
"""numba is made of the first, pins its version, and is all that is compiled with it; scikit-learn
alone calls what imports it"""
RIVALS = {"torch_choice", "recsim"}
"""measured against where they are installed; each wants versions of its own, so no extra of ours
installs them (pandas is one of the extra `frames`)"""


def names(group: str | None = None) -> set[str]:
    requirements = (
        PROJECT["dependencies"] if group is None else PROJECT["optional-dependencies"][group]
    )
    return {IMPORT_NAMES.get(name, name) for name in lowest(requirements)}


def used(*rooms: str, outside: tuple[str, ...] = ()) -> set[str]:
    """Top-level names of other projects that the rooms import; with `outside`, that all rooms but
    those do."""
    return {
        top_of(one.module)
        for one in IMPORTS
        if one.module[0] != "." and (one.room in rooms if rooms else one.room not in outside)
    } - {*sys.stdlib_module_names, "fastgaum"}


def test_the_package_needs_what_it_imports() -> None:
    extras = (
        "baselines",
        "cuda",
        "plots",
        "rl",
        "serve",
        "tensorboard",
        "mlflow",
    )
    optional = set().union(*map(names, extras))
    assert used(outside=("bench",)) - BROUGHT == (names() | optional) - FOR_USERS
    assert used("bench") - RIVALS <= names() | names("bench") | names("plots")
    requires = importlib.metadata.requires("numba") or []
    assert any(one.startswith(tuple(BROUGHT)) for one in requires), requires


def test_an_extra_is_imported_inside_functions_only() -> None:
    """The package works without its extras: whoever asks for what needs one is told which."""
    extras = {"stable_baselines3"}.union(
        *map(
            names,
            ("baselines", "cuda", "plots", "serve", "tensorboard", "mlflow"),
        )
    )
    eager = {
        one.file.name
        for one in IMPORTS
        if one.eager and one.room != "bench" and top_of(one.module) in extras
    }
    assert eager == {"sb3.py", "http.py", "mcp.py", "cuda_ops.py"}, (
        "whose class derives from one of the extra's, and which says so where it is absent; and "
        "the service, whose command says so; and kernels, which plain torch stands in for"
    )


def test_every_dependency_has_a_lowest_version() -> None:
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        assert all(lowest(requirements).values())
    assert set(EXTRAS) <= set(PROJECT["optional-dependencies"])
    with pytest.raises(ValueError, match="a dependency is 'name>=lowest', got 'torch'"):
        lowest(["torch"])
    for name, version in lowest(PROJECT["dependencies"]).items():
        # a release below a lower bound would be tested here and refused by pip everywhere else
        installed = importlib.metadata.version(name).split("+")[0].split(".")[:3]
        assert [int(part) for part in installed] >= [int(part) for part in version.split(".")], name
