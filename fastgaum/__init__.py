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

from fastgaum.envs.registration import register_when_imported

if TYPE_CHECKING:
    from fastgaum import errors
    from fastgaum.config import Config
    from fastgaum.datasets.registry import load
    from fastgaum.envs.learned import LearnedWorld
    from fastgaum.envs.single_env import UserEnv
    from fastgaum.envs.vector_env import UserVectorEnv
    from fastgaum.models.user_model import UserModel
    from fastgaum.report.page import write_report
    from fastgaum.sessions.audit import audit
    from fastgaum.sessions.packed import SessionLog
    from fastgaum.sessions.read import read_log
    from fastgaum.sessions.split import resplit
    from fastgaum.sessions.store import load_log, save_log
    from fastgaum.sessions.synthetic import synthesise

    __version__: str

__all__ = [
    "Config",
    "LearnedWorld",
    "SessionLog",
    "UserEnv",
    "UserModel",
    "UserVectorEnv",
    "__version__",
    "audit",
    "errors",
    "load",
    "load_log",
    "read_log",
    "resplit",
    "save_log",
    "synthesise",
    "write_report",
]

_HOME = {
    "Config": "fastgaum.config",
    "LearnedWorld": "fastgaum.envs.learned",
    "SessionLog": "fastgaum.sessions.packed",
    "UserEnv": "fastgaum.envs.single_env",
    "UserModel": "fastgaum.models.user_model",
    "UserVectorEnv": "fastgaum.envs.vector_env",
    "audit": "fastgaum.sessions.audit",
    "load": "fastgaum.datasets.registry",
    "load_log": "fastgaum.sessions.store",
    "read_log": "fastgaum.sessions.read",
    "resplit": "fastgaum.sessions.split",
    "save_log": "fastgaum.sessions.store",
    "synthesise": "fastgaum.sessions.synthetic",
    "write_report": "fastgaum.report.page",
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


# Last: gymnasium may be there already.
register_when_imported()
