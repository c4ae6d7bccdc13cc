"""The conditional logit of a choice modeller: constants and coefficients by name, as they are, with
their errors and the measures of fit. No penalty, no standardised number, no count of choices.

V_ni = constant_i + Σ_f β_f x_nif + Σ_g β_gi x_nig, with f generic and g by item; the base's
constant is 0, and so is the utility of no click where that is a choice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import torch
from scipy import sparse
from scipy.special import erfc
from torch import Tensor

from fastgaum.arrays import BoolArray, Float64Array, LongArray
from fastgaum.baselines.base import SoftmaxModel, item_rows
from fastgaum.baselines.logit_summary import Coefficients, fit_coefficients
from fastgaum.errors import ConfigError, as_given, did_you_mean, require_known
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.space import FeatureSpace
from fastgaum.features.standardise import Moments, standardised
from fastgaum.html_view import html_view
from fastgaum.logs.log import SPLITS, TEST, TRAIN, Of, SessionLog, SplitName, require_split
from fastgaum.logs.read import as_log, load, read_log
from fastgaum.logs.tables import Frame, LogSource
from fastgaum.models.choice_model import ModelSettings
from fastgaum.nets.batches import Batch, assemble
from fastgaum.state_file import State

MOST_COEFFICIENTS = 500
"""constants and coefficients of a model, whose covariance is shown whole"""
Errors = Literal["clustered", "robust", "classical"]
_READ_NUMBERS = {"candidate_fields", "item_table", "user_table", "context_fields", "time_fields"}
"""options of reading that name numbers"""
ERRORS: tuple[Errors, ...] = ("clustered", "robust", "classical")


def logit(
    data: SessionLog | LogSource,
    numbers: Sequence[str] | None = None,
    *,
    constants: bool = True,
    by_item: Sequence[str] = (),
    base: object = None,
    split: SplitName = "all",
    **reading: Any,
) -> LogitModel:
    """Fit a conditional logit (MNL) by maximum likelihood; `print` shows its table.

    Args:
        data: a log; or a frame, a path or a name, which is read with the options of `read_log`
            (`reading`, all but its split). The columns that are named here are then read, as
            fields of candidates but for those of `context_fields`.
        numbers: columns with one coefficient for all items; None: all numbers of the log's
            candidates and items that are not in `by_item`.
        constants: whether each item but the base has a constant.
        by_item: columns with a coefficient for each item; numbers of an event or a user have one
            for each item but the base.
        base: id of the item without a constant; None: the first. Where no click is a choice, it is
            the base.
        split: what is fitted, "all" of it or one split.

    Returns: the fitted model. Weights of events are scaled to a mean of 1.

    Raises:
        ConfigError: a name is unknown or holds no numbers, or `base` is no item.
        LogFormatError: as `read_log`, or the split is empty.
    """
    if isinstance(data, SessionLog):
        if reading:
            raise ConfigError(
                f"the log has been read, {', '.join(reading)} says how to read one: give these "
                "options to fastgaum.load or fastgaum.read_log"
            )
    else:
        named = (*_names("numbers", numbers or ()), *_names("by_item", by_item))
        if numbers is None and not named and not _READ_NUMBERS & reading.keys():
            raise ConfigError(
                "numbers is None, and of a frame or file only named columns are read: name them "
                "(numbers=['time', 'cost']), or numbers=[] for constants alone"
            )
        of_events = (*reading.get("context_fields", ()), *reading.get("time_fields", ()))
        if not (reading.get("item_table") or reading.get("user_table")):
            own = [name for name in named if name not in of_events]
            reading.setdefault("candidate_fields", own)
        if isinstance(data, str | os.PathLike):
            data = load(data, **reading)
        else:
            data = read_log(data, **reading)
    return LogitModel(numbers, constants=constants, by_item=by_item, base=base, split=split).fit(
        data
    )


@dataclass(frozen=True)
class _Part:
    """A column, or 1, times a coefficient for each item or one of all."""

    column: str | None
    """None: constants"""
    places: LongArray
    """the coefficient of each item that was fitted, and last of others; -1: none, (n_items + 1,)"""


class LogitModel(SoftmaxModel):
    """The conditional logit that `fastgaum.logit` fits. It answers all that other models answer:
    `predict`, `fastgaum.what_if`, `elasticities`, `willingness_to_pay`, also of the choices that
    it was fitted to.

    An item that was not displayed in the fit has the constant and the coefficients of no item: 0.

    Attributes:
        n_events: choices that were fitted, N.
        n_users: users of these, by whom errors are clustered.
        coefficients: what `summary` and the covariances are made of.
        null_log_likelihood: of the choices, in nats, with equal shares of all that could be chosen.
        notes: what has no value, and why.
    """

    seed, protocol = 0, "identity"
    answers_in_sample = True

    @property
    def default_split(self) -> SplitName:
        """What it was fitted to."""
        return self.split

    def __init__(
        self,
        numbers: Sequence[str] | None = None,
        *,
        constants: bool = True,
        by_item: Sequence[str] = (),
        base: object = None,
        split: SplitName = "all",
    ) -> None:
        """Take what `fastgaum.logit` takes. Raises ConfigError."""
        self.numbers = None if numbers is None else _names("numbers", numbers)
        self.by_item = _names("by_item", by_item)
        if not isinstance(constants, bool):
            raise ConfigError(f"constants is {as_given(constants)}, True or False is required")
        self.constants, self.base = constants, None if base is None else str(base)
        require_known("split", split, (*SPLITS, "all"))
        self.split: SplitName = split
        twice = [*(self.numbers or ()), *self.by_item]
        if len({*twice}) < len(twice):
            raise ConfigError(
                f"numbers and by_item name {', '.join(sorted({*twice}))}, one of them twice: a "
                "column has one coefficient, or one for each item"
            )
        self.parts: tuple[_Part, ...] = ()
        self.coefficients: Coefficients
        self.notes: tuple[str, ...] = ()

    @property
    def settings(self) -> ModelSettings:
        """Itself."""
        return self

    def to_mapping(self) -> dict[str, Any]:
        """What the constructor was given."""
        return self.get_params()

    def fit(self, log: SessionLog | Frame, y: None = None, *, progress: bool | None = None) -> Self:
        """Fit to the split; return the model. Raises as `fastgaum.logit`."""
        log = as_log(log)
        require_split(log, self.split)
        of_fit = np.isin(np.arange(log.n_sessions), log.sessions_in(self.split))
        fitted = log.with_split(np.where(of_fit, TRAIN, TEST).astype(np.int8))
        space = fit_space(fitted, "identity", relative_numbers=False)
        # numbers as they are
        code, of_context = (
            standardised(Moments(), n) for n in (space.n_raw, len(space.context_number_names))
        )
        self.space = space = space.with_changes(
            code=code, context_code=of_context, fingerprint=log.fingerprint
        )
        self.no_click = space.no_click
        self.parts, names = self._parts_of(log, space)
        encoded = Encoder(space, fitted).encode(fitted.sessions_in("train"))
        batch = assemble(encoded)
        values = [self._values(part, batch) for part in self.parts]
        item = item_rows(batch)

        def rows(at: LongArray) -> Float64Array:
            # one column more: of items that a part leaves out
            made = np.zeros((len(at), len(names) + 1))
            for part, one in zip(self.parts, values, strict=True):
                made[np.arange(len(at)), part.places[item[at]]] = one[at]
            return made[:, :-1]

        users = np.unique(encoded.user_of_event, return_inverse=True)[1]
        none = sparse.csr_matrix((len(item), 0))
        found = fit_coefficients(none, rows, names, encoded, users, self.no_click)
        lost = [name for name, value in zip(names, found.values, strict=True) if np.isnan(value)]
        if lost:
            warnings.warn(f"logit of log '{log.name}': {_without_value(lost)}", stacklevel=2)
        self.notes = (_without_value(lost),) if lost else ()
        self.coefficients, self.log_name = found, log.name
        self.n_events, self.n_users = encoded.n_events, int(users.max()) + 1
        sizes = np.diff(encoded.display_offsets) + self.no_click
        self.null_log_likelihood = -float(np.log(sizes) @ encoded.weight_of_event)
        self.history_ = self.summary()
        return self

    def _parts_of(
        self, log: SessionLog, space: FeatureSpace
    ) -> tuple[tuple[_Part, ...], list[str]]:
        """What utilities are sums of, and the names of the coefficients. Raises ConfigError."""
        items = space.categorical[0].values.cast(pl.String).to_list()
        known = {name: log.columns[name].of for name in space.number_names}
        known |= {name: log.columns[name].of for name in space.context_number_names}
        generic = self.numbers
        if generic is None:
            generic = tuple(one for one in space.number_names if one not in self.by_item)
        for name in (*generic, *self.by_item):
            self._require_number(log, name, known)
        base = None if self.no_click else items[0]
        if self.base is not None:
            if self.no_click:
                raise ConfigError(
                    f"base is '{self.base}', and no click is a choice in log '{log.name}', whose "
                    "utility is 0: leave base out"
                )
            require_known("base", self.base, items)
            base = self.base
        self.items, self.base_item = items, base
        others = np.array([item != base for item in items])
        names, parts = list[str](), list[_Part]()

        def add(column: str | None, of: str, which: BoolArray) -> None:
            # the last is of an item that the fit has not met
            places = np.full(len(items) + 1, -1)
            places[:-1][which] = len(names) + np.arange(which.sum())
            names.extend(f"{of}[{items[row]}]" for row in np.flatnonzero(which))
            parts.append(_Part(column, places))

        if self.constants:
            add(None, "constant", others)
        for name in generic:
            parts.append(_Part(name, np.full(len(items) + 1, len(names))))
            names.append(name)
        for name in self.by_item:
            add(name, name, others if known[name] in ("event", "user") else others | True)
        if not 0 < len(names) <= MOST_COEFFICIENTS:
            raise ConfigError(
                f"the model would have {len(names)} coefficients, 1 to {MOST_COEFFICIENTS} are "
                "fitted here: name numbers, or leave out constants (constants=False) or by_item; "
                "make_model('logit').fit(log).summary(log) has constants of any number, which it "
                "does not show"
            )
        return tuple(parts), names

    def _require_number(self, log: SessionLog, name: str, known: Mapping[str, Of]) -> None:
        if name in log.columns and log.columns[name].texts is not None:
            whole = " (whole numbers of events are categories: make them decimal)"
            raise ConfigError(
                f"'{name}' holds categories{whole if name in log.context else ''}, a column of "
                "numbers is required: give a column of 0 and 1 for each value but one"
            )
        if name not in known:
            raise ConfigError(
                f"log '{log.name}' has no column of numbers '{name}'{did_you_mean(name, known)}; "
                f"it has {', '.join(known) or 'none'}: read it (candidate_fields=…, "
                "context_fields=…)"
            )
        if known[name] in ("event", "user") and name not in self.by_item and not self.no_click:
            raise ConfigError(
                f"'{name}' is the same for all items of a display, so that it decides nothing: "
                f"give it a coefficient for each item, by_item=['{name}']"
            )

    def _values(self, part: _Part, batch: Batch) -> Float64Array:
        """What a part's coefficients multiply, (n_candidates,)."""
        space = self._trained_space()
        if part.column is None:
            return np.ones(len(batch.ids))
        if part.column in space.number_names:
            column = batch.candidates.numbers[:, space.number_names.index(part.column)]
            return column.double().cpu().numpy()
        of_events = batch.context_numbers[:, space.context_number_names.index(part.column)]
        sizes = batch.display_offsets.diff().cpu().numpy()
        return np.repeat(of_events.double().cpu().numpy(), sizes)

    def _ranked(self, batch: Batch) -> tuple[np.ndarray, Tensor]:
        weights, item = np.append(self.coefficients.weights, 0.0), item_rows(batch)
        utility = np.zeros(len(item))
        for part in self.parts:
            utility += weights[part.places[item]] * self._values(part, batch)
        return utility, torch.from_numpy(utility.astype(np.float32))

    def slopes(self, field: str, items: Sequence[str | None]) -> Float64Array:
        """By how much of each coefficient a unit of a field raises the utility of each item,
        (n_items, n_coefficients). Raises ConfigError: the field has no coefficient."""
        known = {one.column for one in self.parts if one.column is not None}
        if field not in known:
            raise ConfigError(
                f"the logit has no coefficient of '{field}'{did_you_mean(field, known)}; it has "
                f"some of {', '.join(sorted(known)) or 'constants alone'}"
            )
        row = {item: number for number, item in enumerate(self.items)}
        slope = np.zeros((len(items), len(self.coefficients.names) + 1))
        for part in self.parts:
            if part.column == field:
                places = part.places[[row.get(item or "", -1) for item in items]]
                slope[np.arange(len(items)), places] = 1
        return slope[:, :-1]

    def state(self) -> State:
        """Raise ConfigError: such a model is not written to a file."""
        raise ConfigError(
            "a model of fastgaum.logit has no file: keep summary() and the covariances, which are "
            "frames, and fit it again"
        )

    @property
    def log_likelihood(self) -> float:
        """Of the choices, nats."""
        return self.coefficients.log_likelihood

    @property
    def n_parameters(self) -> int:
        """Coefficients with a finite value, K."""
        return int(np.isfinite(self.coefficients.values).sum())

    @property
    def rho2(self) -> float:
        """McFadden's 1 − L / L₀."""
        return 1 - self.log_likelihood / self.null_log_likelihood

    @property
    def adjusted_rho2(self) -> float:
        """1 − (L − K) / L₀."""
        return 1 - (self.log_likelihood - self.n_parameters) / self.null_log_likelihood

    @property
    def aic(self) -> float:
        """2 K − 2 L."""
        return 2 * self.n_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """K log N − 2 L."""
        return self.n_parameters * float(np.log(self.n_events)) - 2 * self.log_likelihood

    @property
    def covariance(self) -> pl.DataFrame:
        """The inverse of the curvature, as a frame: name, then a column per coefficient."""
        return self._covariance(self.coefficients.classical)

    @property
    def robust_covariance(self) -> pl.DataFrame:
        """The sandwich of choices, likewise."""
        return self._covariance(self.coefficients.robust)

    @property
    def clustered_covariance(self) -> pl.DataFrame:
        """The sandwich of users, likewise."""
        return self._covariance(self.coefficients.covariance)

    def _covariance(self, values: Float64Array) -> pl.DataFrame:
        names = self.coefficients.names
        columns = {"name": pl.Series(names)} | dict(zip(names, values.T, strict=True))
        return pl.DataFrame(columns).fill_nan(None)

    def summary(self, errors: Errors = "clustered") -> pl.DataFrame:
        """A row per constant and coefficient: name, estimate; standard_error (by the curvature),
        robust_error (by the sandwich), clustered_error (by the sandwich of users); t and p, two
        sided and normal, by `errors`. Null where there is no finite value. No correction is made
        for few users. Raises ConfigError: other errors."""
        require_known("errors", errors, ERRORS)
        found = self.coefficients
        of = {
            "classical": np.sqrt(np.diag(found.classical)),
            "robust": np.sqrt(np.diag(found.robust)),
            "clustered": np.sqrt(np.diag(found.covariance)),
        }
        t = found.values / of[errors]
        columns = {
            "name": found.names,
            "estimate": found.values,
            "standard_error": of["classical"],
            "robust_error": of["robust"],
            "clustered_error": of["clustered"],
            "t": t,
            "p": erfc(np.abs(t) / np.sqrt(2)),
        }
        return pl.DataFrame(columns).fill_nan(None)

    def __repr__(self) -> str:
        if self.space is None:
            return "LogitModel(not fitted)"
        return (
            f"LogitModel({self.n_parameters} coefficients, {self.n_events:,} choices, "
            f"log-likelihood {self.log_likelihood:,.3f})"
        )

    def __str__(self) -> str:
        if self.space is None:
            return repr(self)
        facts = self._facts()
        wide = max(len(what) for what, _ in facts)
        head = [f"{what:<{wide}}  {text:>14}" for what, text in facts]
        columns, rows = self._table()
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in (columns, *rows)
        ]
        return "\n".join([self._title(), *head, "", *lines, *self._remarks()])

    def _repr_html_(self) -> str:
        if self.space is None:
            return super()._repr_html_()
        facts = " · ".join(f"{what} {text}" for what, text in self._facts())
        return html_view(self._title(), *self._table(), [facts, *self._remarks()])

    def _title(self) -> str:
        return f"Conditional logit of '{self.log_name}'"

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("choices (N)", f"{self.n_events:,}"),
            ("users", f"{self.n_users:,}"),
            ("coefficients (K)", f"{self.n_parameters}"),
            ("log-likelihood", f"{self.log_likelihood:,.3f}"),
            ("null log-likelihood", f"{self.null_log_likelihood:,.3f}"),
            ("rho²", f"{self.rho2:.4f}"),
            ("adjusted rho²", f"{self.adjusted_rho2:.4f}"),
            ("AIC", f"{self.aic:,.2f}"),
            ("BIC", f"{self.bic:,.2f}"),
        ]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        columns = ["", "estimate", "std. error", "robust", "by user", "t", "p"]
        rows = []
        for name, *figures, t, p in self.summary().rows():
            texts = ["–" if one is None else f"{one:.6g}" for one in figures]
            tests = ["–", "–"] if t is None else [f"{t:.2f}", f"{p:.4f}"]
            rows.append([name, *texts, *tests])
        return columns, rows

    def _remarks(self) -> list[str]:
        base = "no click" if self.base_item is None else self.base_item
        remarks = [f"base: {base}; t and p by the errors by user", *self.notes]
        return remarks if self.constants or self.by_item else remarks[1:]


def _names(what: str, given: Any) -> tuple[str, ...]:
    """A list of names of columns. Raises ConfigError for another thing."""
    listed = isinstance(given, Iterable) and not isinstance(given, str)
    if not listed or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{what} is {as_given(given)}, a list of names of columns is required")
    return tuple(given)


def _without_value(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (
        f"no finite value is the likeliest of {shown}: other coefficients determine it, or its "
        "item was never or always chosen"
    )
