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
    from fastgaum import errors as errors
    from fastgaum.baselines.logit_model import logit as logit
    from fastgaum.config import Config as Config
    from fastgaum.game.observers import MlflowObserver as MlflowObserver
    from fastgaum.game.observers import Observer as Observer
    from fastgaum.game.observers import TensorBoardObserver as TensorBoardObserver
    from fastgaum.logs.audit import audit as audit
    from fastgaum.logs.log import SessionLog as SessionLog
    from fastgaum.logs.read import load as load
    from fastgaum.logs.read import read_log as read_log
    from fastgaum.logs.splits import halves as halves
    from fastgaum.logs.splits import resplit as resplit
    from fastgaum.logs.store import load_log as load_log
    from fastgaum.logs.store import save_log as save_log
    from fastgaum.logs.synthetic import synthesise as synthesise
    from fastgaum.models.estimator import Estimator as Estimator
    from fastgaum.models.user_model import UserModel as UserModel
    from fastgaum.policies.explore import Explore as Explore
    from fastgaum.policies.planning import judge as judge
    from fastgaum.policies.planning import users as users
    from fastgaum.reports.comparison import compare as compare
    from fastgaum.reports.page import write_report as write_report
    from fastgaum.reports.picture import plot as plot
    from fastgaum.reports.what_if import elasticities as elasticities
    from fastgaum.reports.what_if import importance as importance
    from fastgaum.reports.what_if import response_curve as response_curve
    from fastgaum.reports.what_if import what_if as what_if
    from fastgaum.reports.what_if import willingness_to_pay as willingness_to_pay
    from fastgaum.worlds.learned_world import LearnedWorld as LearnedWorld
    from fastgaum.worlds.minari_dataset import to_minari as to_minari
    from fastgaum.worlds.single_env import UserEnv as UserEnv
    from fastgaum.worlds.vector_env import UserVectorEnv as UserVectorEnv
    from fastgaum.worlds.world_set import WorldSet as WorldSet

    __version__: str

_HOME = {
    name: f"fastgaum.{module}"
    for module, names in {
        "baselines.logit_model": "logit",
        "config": "Config",
        "game.observers": "MlflowObserver Observer TensorBoardObserver",
        "logs.audit": "audit",
        "logs.log": "SessionLog",
        "logs.read": "load read_log",
        "logs.splits": "halves resplit",
        "logs.store": "load_log save_log",
        "logs.synthetic": "synthesise",
        "models.estimator": "Estimator",
        "models.user_model": "UserModel",
        "policies.explore": "Explore",
        "policies.planning": "judge users",
        "reports.comparison": "compare",
        "reports.page": "write_report",
        "reports.picture": "plot",
        "reports.what_if": "elasticities importance response_curve what_if willingness_to_pay",
        "worlds.learned_world": "LearnedWorld",
        "worlds.minari_dataset": "to_minari",
        "worlds.single_env": "UserEnv",
        "worlds.vector_env": "UserVectorEnv",
        "worlds.world_set": "WorldSet",
    }.items()
    for name in names.split()
}
__all__ = ["__version__", "errors", *_HOME]


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
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastgaum")
    except PackageNotFoundError:
        # A bare checkout on the path: nothing was installed, so nothing knows the version.
        return "0+unknown"
