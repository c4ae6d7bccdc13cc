"""FastGAUM: learn a user from recommender logs.

    import fastgaum as fg

    log = fg.load("sample")
    model = fg.UserModel.from_preset("fastgaum")
    model.fit(log)
    model.evaluate(log).heads["reward"].precision[1]

Names are imported when they are first used, so that `import fastgaum` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgaum import errors
    from fastgaum.baselines.opinion_pool import OpinionPool
    from fastgaum.config import Config
    from fastgaum.game.epochs import MlflowObserver, Observer, TensorBoardObserver
    from fastgaum.logs.audit import audit
    from fastgaum.logs.log import SessionLog
    from fastgaum.logs.read import load, read_log
    from fastgaum.logs.splits import resplit
    from fastgaum.logs.store import load_log, save_log
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.models.tuning import tune
    from fastgaum.models.user_model import UserModel
    from fastgaum.policies.explore import Explore
    from fastgaum.policies.rounds import rounds
    from fastgaum.reports.comparison import compare
    from fastgaum.reports.page import write_report
    from fastgaum.reports.what_if import (
        elasticities,
        importance,
        response_curve,
        what_if,
        willingness_to_pay,
    )
    from fastgaum.worlds.learned_world import LearnedWorld
    from fastgaum.worlds.single_env import UserEnv
    from fastgaum.worlds.vector_env import UserVectorEnv
    from fastgaum.worlds.world_set import WorldSet

    __version__: str

__all__ = [
    "Config",
    "Explore",
    "LearnedWorld",
    "MlflowObserver",
    "Observer",
    "OpinionPool",
    "SessionLog",
    "TensorBoardObserver",
    "UserEnv",
    "UserModel",
    "UserVectorEnv",
    "WorldSet",
    "__version__",
    "audit",
    "compare",
    "elasticities",
    "errors",
    "importance",
    "load",
    "load_log",
    "read_log",
    "resplit",
    "response_curve",
    "rounds",
    "save_log",
    "synthesise",
    "tune",
    "what_if",
    "willingness_to_pay",
    "write_report",
]

_HOME = {
    name: f"fastgaum.{module}"
    for module, names in {
        "baselines.opinion_pool": "OpinionPool",
        "config": "Config",
        "game.epochs": "MlflowObserver Observer TensorBoardObserver",
        "logs.audit": "audit",
        "logs.log": "SessionLog",
        "logs.read": "load read_log",
        "logs.splits": "resplit",
        "logs.store": "load_log save_log",
        "logs.synthetic": "synthesise",
        "models.tuning": "tune",
        "models.user_model": "UserModel",
        "policies.explore": "Explore",
        "policies.rounds": "rounds",
        "reports.comparison": "compare",
        "reports.page": "write_report",
        "reports.what_if": "elasticities importance response_curve what_if willingness_to_pay",
        "worlds.learned_world": "LearnedWorld",
        "worlds.single_env": "UserEnv",
        "worlds.vector_env": "UserVectorEnv",
        "worlds.world_set": "WorldSet",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name == "errors":
        value = import_module("fastgaum.errors")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'fastgaum' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastgaum")
    except PackageNotFoundError:
        # A bare checkout on the path: nothing was installed, so nothing knows the version.
        return "0+unknown"
