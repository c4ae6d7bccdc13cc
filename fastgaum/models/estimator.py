"""A model as scikit-learn's tools want one: it reads frames itself, and takes choices as y.

from sklearn.model_selection import GroupKFold, cross_val_score

model = UserModel.from_preset(folds=0, search=[])
estimator = Estimator(model, reading={"candidate_fields": ["price"]})
cross_val_score(estimator, rows, rows["chosen"], groups=rows["user"], cv=GroupKFold(3))"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError, did_you_mean, require_type
from fastgaum.logs.log import TEST, TRAIN, SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.tables import Frame, frame_of
from fastgaum.models.choice_model import ChoiceModel


class Estimator:
    """Fits a copy of a model to frames; `clone`, `Pipeline`, `cross_val_score` and `GridSearchCV`
    take it. Rows of a display belong together, and those of a user: split by users, as
    `GroupKFold` does.

    Attributes:
        model: as it was given; parameters of its own are `model__NAME`.
        reading: options of `fastgaum.read_log` that say what the columns are.
        model_: the fitted copy.
    """

    model_: ChoiceModel

    def __init__(self, model: ChoiceModel, reading: Mapping[str, Any] | None = None) -> None:
        """Take a model, fitted or not. Raises ConfigError for anything else."""
        require_type("model", model, ChoiceModel)
        require_type("reading", reading or {}, Mapping)
        # as it is: clone asks whether it is the same
        self.model, self.reading = model, reading

    def fit(self, rows: Frame, y: object = None) -> Self:
        """Fit to all users of a frame, some of whom validate; none is held out, for the caller does
        that. `y`: the column `chosen`, where the frame does not have it.

        Raises:
            ConfigError: `y` is not one value for each row, or not what the frame has.
            LogFormatError: as `fastgaum.read_log`.
        """
        log = self._read(rows, y)
        split = np.where(log.split == TEST, np.int8(TRAIN), log.split)
        self.model_ = copy.deepcopy(self.model).fit(log.with_split(split))
        return self

    def predict(self, rows: Frame) -> Any:
        """As `ChoiceModel.predict`: a frame of the same rows in their order, of pandas with its
        index. Raises ConfigError before `fit`."""
        return self._fitted().predict(rows)

    def score(self, rows: Frame, y: object = None) -> float:
        """Mean log-likelihood of the choices of all rows, nats per event; higher is better. Raises
        ConfigError as `fit`, and before it."""
        return self._fitted().score(self._read(rows, y), "all")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor; `deep`: with those of the model, `model__NAME`."""
        own: dict[str, Any] = {"model": self.model, "reading": self.reading}
        inner = self.model.get_params() if deep else {}
        return own | {f"model__{name}": value for name, value in inner.items()}

    def set_params(self, **params: Any) -> Self:
        """Change what `get_params` names. Raises ConfigError for another name or an impossible
        value."""
        own = {name: value for name, value in params.items() if name in ("model", "reading")}
        inner = {name: value for name, value in params.items() if name.startswith("model__")}
        if wrong := [name for name in params if name not in own and name not in inner]:
            close = did_you_mean(wrong[0], self.get_params())
            raise ConfigError(
                f"an Estimator has no parameter '{wrong[0]}'{close}; those of its model begin with "
                "model__"
            )
        self.__init__(**{"model": self.model, "reading": self.reading} | own)  # type: ignore[misc]
        if inner:
            self.model.set_params(**{name[len("model__") :]: one for name, one in inner.items()})
        return self

    def __repr__(self) -> str:
        return f"Estimator({self.model!r}, reading={self.reading!r})"

    def __sklearn_is_fitted__(self) -> bool:
        """As scikit-learn asks."""
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        """As scikit-learn asks: neither a classifier nor a regressor."""
        return self.model.__sklearn_tags__()

    def _fitted(self) -> ChoiceModel:
        if not hasattr(self, "model_"):
            raise ConfigError("the estimator has not been fitted: call fit first")
        return self.model_

    def _read(self, rows: Frame, y: object) -> SessionLog:
        options = dict(self.reading or {})
        if y is None:
            return read_log(rows, **options)
        frame, name = frame_of(rows), (options.get("columns") or {}).get("chosen", "chosen")
        chosen = np.asarray(y)
        if chosen.shape != (frame.height,):
            raise ConfigError(
                f"y has the shape {chosen.shape}, one value for each of {frame.height} rows is "
                "required"
            )
        if name in frame.columns and not np.array_equal(frame[name].to_numpy(), chosen):
            raise ConfigError(f"y is not the frame's column '{name}': give one of them")
        return read_log(frame.with_columns(pl.Series(name, chosen)), **options)
