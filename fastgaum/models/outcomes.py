"""Outcome heads of a fitted model: fitted after the choices, on the states that these have."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgaum import ops
from fastgaum.arrays import Float64Array, FloatArray, IntArray, LongArray
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.features.outcomes import OutcomeField, outcomes_of
from fastgaum.features.sessions import select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.game.scoring import SCORING_SESSIONS
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.nets.batches import Batch, batches
from fastgaum.nets.networks import Networks
from fastgaum.nets.outcomes import N_QUANTILES, OutcomeHead
from fastgaum.nets.tensors import Bags, float32_on
from fastgaum.ops.optimiser import LazyAdamW
from fastgaum.state_file import check_weights

MOST_CHOICES = 500_000
"""from which a head learns"""
AT_ONCE, EPOCHS, PATIENCE, RATE, DECAY = 512, 40, 4, 3e-3, 0.1
FOLDS_OF_MEANS, PRIOR_CHOICES = 8, 5.0
"""folds of users of which training reads an item's mean without its own, and choices of the
training mean that each item's begins with"""
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""of the ridge, of which validation chooses"""
UNKNOWN_SHARE = 0.1
"""of ids that training replaces by their field's unknown row"""


@dataclass(frozen=True)
class ChoicesOfSplit:
    """Choices with what followed them."""

    ids: IntArray
    """(n, n_fields)"""
    numbers: FloatArray
    """(n, n_numbers)"""
    states: FloatArray
    """(n, state_dim)"""
    values: FloatArray
    """columns of outcomes, NaN for what is not known, (n, n_columns)"""
    users: LongArray
    """a number of each choice's user, (n,)"""

    def bags(self, rows: IntArray | slice) -> Bags:
        """Bags of some of the candidates."""
        return equal_bags(self.ids[rows], self.numbers[rows])


def equal_bags(ids: IntArray, numbers: FloatArray) -> Bags:
    """Bags of as many ids each, (n_bags, width)."""
    offsets = torch.arange(len(ids) + 1, dtype=torch.int32) * ids.shape[1]
    flat = torch.from_numpy(np.ascontiguousarray(ids).reshape(-1))
    return Bags(flat, offsets, torch.from_numpy(np.ascontiguousarray(numbers)), None, ids.shape[1])


def slices_of(fields: Sequence[OutcomeField]) -> Iterator[tuple[OutcomeField, slice]]:
    """Each outcome and its columns."""
    start = 0
    for one in fields:
        yield one, slice(start, start + one.width)
        start += one.width


@torch.no_grad()
def choices_of_split(
    networks: Networks, space: FeatureSpace, log: SessionLog, split: SplitName
) -> ChoicesOfSplit:
    """The choices of a split, of at most MOST_CHOICES drawn sessions' worth, after which an outcome
    is known."""
    rows = log.sessions_in(split)
    per_session = log.count("events", split) / max(len(rows), 1)
    if (most := int(MOST_CHOICES / max(per_session, 1))) < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, max(most, 1), replace=False))
    encoded, found = Encoder(space, log).encode(rows), list[tuple[np.ndarray, ...]]()
    events = select_sessions(log, encoded.rows).events
    values, first = outcomes_of(space.outcomes, log), 0
    networks.eval()
    with ops.plain():
        for batch in batches(encoded, SCORING_SESSIONS):
            states = networks.player.states(batch).numpy()
            clicked, chosen = batch.clicked.numpy(), batch.chosen.numpy()
            of_log = events[first + clicked]
            known = ~np.isnan(values[of_log]).all(1)
            chosen, clicked, of_log = chosen[known], clicked[known], of_log[known]
            numbers = batch.candidates.numbers.numpy()[chosen]
            users = log.users[log.session_of_event[of_log]].astype(np.int64)
            found.append((batch.ids[chosen], numbers, states[clicked], values[of_log], users))
            first += batch.n_events
    return ChoicesOfSplit(*(np.concatenate(part) for part in zip(*found, strict=True)))


def losses_of(
    fields: Sequence[OutcomeField], outputs: Tensor, values: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The loss of each outcome at each choice, and where it is known, (n,) each: half a squared
    error of a standardised number, cross entropy of a category; values: standardised numbers, and
    shares of categories."""
    found = []
    for one, columns in slices_of(fields):
        output, value = outputs[:, columns], values[:, columns]
        known = ~torch.isnan(value[:, 0])
        value = torch.nan_to_num(value)
        if one.categories is None:
            loss = 0.5 * (output - value)[:, 0] ** 2
        else:
            loss = -(value * output.log_softmax(1)).sum(1)
        found.append((torch.where(known, loss, torch.zeros(())), known))
    return found


def _targets(fields: Sequence[OutcomeField], values: FloatArray) -> FloatArray:
    """Outcomes as heads learn them: numbers standardised."""
    targets = values.copy()
    for one, columns in slices_of(fields):
        if one.categories is None:
            targets[:, columns] = (values[:, columns] - one.mean) / one.scale
    return targets


def _item_bases(
    head: OutcomeHead,
    fields: Sequence[OutcomeField],
    train: ChoicesOfSplit,
    targets: FloatArray,
) -> FloatArray:
    """Write what each item's choices were followed by in training into a head, shrunk to the mean;
    return the same of each training choice without those of a fold of users, its own among them,
    (n, n_columns)."""
    folds = train.users % FOLDS_OF_MEANS
    items, n_items = train.ids[:, 0], len(head.by_item)
    # what is not known of a choice is not counted
    known = ~np.isnan(targets)
    totals = np.zeros((FOLDS_OF_MEANS, n_items, targets.shape[1]), np.float32)
    counts = np.zeros_like(totals)
    np.add.at(totals, (folds, items), np.nan_to_num(targets))
    np.add.at(counts, (folds, items), known)
    priors = np.zeros(targets.shape[1], np.float32)
    for one, columns in slices_of(fields):
        if one.categories is not None:
            priors[columns] = one.mean / one.mean.sum()

    def base(total: FloatArray, count: FloatArray) -> FloatArray:
        means: FloatArray = (total + PRIOR_CHOICES * priors) / (count + PRIOR_CHOICES)
        for one, columns in slices_of(fields):
            if one.categories is not None:
                means[..., columns] = np.log(np.maximum(means[..., columns], 1e-6))
        return means

    whole, of_all = totals.sum(0), counts.sum(0)
    head.by_item[:] = torch.from_numpy(base(whole, of_all))
    head.usual[:] = torch.from_numpy(base(np.zeros_like(priors), np.zeros_like(priors)))
    own = folds, items
    return base(whole[items] - totals[own], of_all[items] - counts[own])


def _mean_loss(fields: Sequence[OutcomeField], outputs: Tensor, values: Tensor) -> Tensor:
    each = losses_of(fields, outputs, values)
    return torch.stack([loss.sum() / known.sum().clamp(min=1) for loss, known in each]).sum()


def fit_heads(
    networks: Networks, space: FeatureSpace, log: SessionLog, seed: int
) -> OutcomeHead | None:
    """The heads of the outcomes of a log, on the states of fitted networks: drawn from torch's
    stream, learned on training, chosen and calibrated on validation. None where the log has no
    outcomes."""
    fields = space.outcomes
    if not fields:
        return None
    source = copy.deepcopy(networks).cpu().float()
    train, validation = (
        choices_of_split(source, space, log, split) for split in ("train", "validation")
    )
    if not len(train.values) or not len(validation.values):
        raise ConfigError(
            f"log '{log.name}' has outcomes of {len(train.values)} training and "
            f"{len(validation.values)} validation choices, some of both are required: leave the "
            "outcomes out, or choose another split"
        )
    widths = [one.width for one in fields]
    with float32_on():
        head = OutcomeHead(space.n_ids, space.n_numbers, train.states.shape[1], widths)
    tables = [head.first.table, head.wide.table]
    for module in (head.first, head.wide):
        module.sparse_grad = True
    of_tables = {id(one) for one in tables}
    dense = [one for one in head.parameters() if id(one) not in of_tables]
    optimiser = LazyAdamW(dense, tables, RATE, DECAY, 5.0)
    targets, unknown = _targets(fields, train.values), space.unknown_of_id
    bases, usual = _item_bases(head, fields, train, targets), head.usual.numpy()
    draws = np.random.default_rng(seed)
    # an item's mean alone is the first candidate
    best, since = (_loss_of(head, fields, validation), copy.deepcopy(head.state_dict())), 0
    for _ in range(EPOCHS):
        head.train()
        order = draws.permutation(len(targets))
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            ids = train.ids[rows]
            ids = np.where(draws.random(ids.shape) < UNKNOWN_SHARE, unknown[ids], ids)
            is_own = ids[:, :1] == train.ids[rows, :1]
            base = np.where(is_own, bases[rows], usual).astype(np.float32)
            optimiser.zero_grad()
            bags = equal_bags(ids.astype(np.int32), train.numbers[rows])
            ones = torch.arange(len(rows) + 1, dtype=torch.int32)
            left = head.residual(bags, torch.from_numpy(train.states[rows]), ones)
            loss = _mean_loss(
                fields, torch.from_numpy(base) + left, torch.from_numpy(targets[rows])
            )
            torch.autograd.backward(loss)
            optimiser.step()
        optimiser.settle()
        found = _loss_of(head, fields, validation)
        if found < best[0] - 1e-5:
            best, since = (found, copy.deepcopy(head.state_dict())), 0
        elif (since := since + 1) >= PATIENCE:
            break
    optimiser.settle()
    optimiser.release()
    for module in (head.first, head.wide):
        module.sparse_grad = False
    head.load_state_dict(best[1])
    _calibrate(head, fields, validation)
    _fit_ridge(head, fields, train, validation)
    return head.eval()


def heads_of(space: FeatureSpace, state_dim: int, weights: dict[str, Tensor]) -> OutcomeHead:
    """The heads of a file's weights. Raises ValueError for other weights than a space's."""
    sizes = space.n_ids, space.n_numbers, state_dim, [one.width for one in space.outcomes]
    with float32_on("meta"):
        check_weights(OutcomeHead(*sizes), weights)
    with float32_on():
        head = OutcomeHead(*sizes)
    head.load_state_dict(weights)
    return head.eval()


@torch.no_grad()
def outputs_of(head: OutcomeHead, choices: ChoicesOfSplit) -> Tensor:
    """What a head says of choices before it is calibrated, (n, n_columns)."""
    head.eval()
    found = []
    for start in range(0, max(len(choices.ids), 1), 1 << 14):
        rows = slice(start, start + (1 << 14))
        bags = choices.bags(rows)
        ones = torch.arange(bags.n_bags + 1, dtype=torch.int32)
        found.append(head(bags, torch.from_numpy(choices.states[rows]), ones))
    return torch.cat(found)


def _loss_of(head: OutcomeHead, fields: Sequence[OutcomeField], choices: ChoicesOfSplit) -> float:
    targets = torch.from_numpy(_targets(fields, choices.values))
    return float(_mean_loss(fields, outputs_of(head, choices), targets))


@torch.no_grad()
def _calibrate(
    head: OutcomeHead, fields: Sequence[OutcomeField], validation: ChoicesOfSplit
) -> None:
    """A line through numbers, and a share of training's rates in categories, by validation; then
    the quantiles of what is left."""
    outputs, values = outputs_of(head, validation), _targets(fields, validation.values)
    for one, columns in slices_of(fields):
        known = ~np.isnan(values[:, columns.start])
        output, value = outputs[:, columns].numpy()[known], values[known, columns]
        if one.categories is None:
            x, y = output[:, 0].astype(np.float64), value[:, 0].astype(np.float64)
            spread = float(((x - x.mean()) ** 2).mean())
            slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 0 else 0.0
            slope = min(max(slope, 0.0), 2.0)
            head.slope[columns.start] = slope
            head.offset[columns.start] = y.mean() - slope * x.mean()
            left = y - (slope * x + float(head.offset[columns.start]))
            at = np.linspace(0, 1, N_QUANTILES)
            head.quantiles[:, columns.start] = torch.from_numpy(np.quantile(left, at))
        else:
            probs = torch.from_numpy(output).softmax(1).numpy()
            shares, rates = np.linspace(0, 1, 21)[:, None], one.mean / one.mean.sum()
            # of what followed: by the head, and by training's rates
            said, usual = (probs * value).sum(1), (rates * value).sum(1)
            mixed = shares * said + (1 - shares) * usual
            nll = -np.log(np.maximum(mixed, 1e-9)).mean(1)
            head.trust[columns] = float(shares[int(nll.argmin()), 0])


def _fit_ridge(
    head: OutcomeHead,
    fields: Sequence[OutcomeField],
    train: ChoicesOfSplit,
    validation: ChoicesOfSplit,
) -> None:
    """Write the ridge of each number on the numbers of the chosen candidates."""
    sides = [
        (np.insert(one.numbers, one.numbers.shape[1], 1, axis=1).astype(np.float64), targets)
        for one in (train, validation)
        for targets in (_targets(fields, one.values),)
    ]
    for one, columns in slices_of(fields):
        if one.categories is not None:
            continue
        (x, y), (x_of, y_of) = (
            (numbers[known], targets[known, columns.start])
            for numbers, targets in sides
            for known in (~np.isnan(targets[:, columns.start]),)
        )
        free, found = np.append(np.ones(x.shape[1] - 1), 1e-9), np.inf
        for penalty in PENALTIES:
            weights = np.linalg.solve(x.T @ x + np.diag(penalty * free), x.T @ y)
            if (error := float(((x_of @ weights - y_of) ** 2).mean())) < found:
                found = error
                head.ridge[:, columns.start] = torch.from_numpy(weights)


def by_ridge(head: OutcomeHead, fields: Sequence[OutcomeField], numbers: FloatArray) -> FloatArray:
    """What the ridge says of candidates by their numbers, in the log's units, NaN of categories,
    (n, n_columns)."""
    weights = head.ridge.numpy()
    found: FloatArray = numbers @ weights[:-1] + weights[-1]
    for one, columns in slices_of(fields):
        found[:, columns] = (
            np.nan if one.categories is not None else found[:, columns] * one.scale + one.mean
        )
    return found


def expected(head: OutcomeHead, fields: Sequence[OutcomeField], outputs: Tensor) -> Float64Array:
    """Calibrated outcomes, in the log's units: E[y] of numbers, probabilities of categories, (n,
    n_columns)."""
    found = np.empty(tuple(outputs.shape))
    for one, columns in slices_of(fields):
        output = outputs[:, columns].detach().numpy().astype(np.float64)
        if one.categories is None:
            line = head.slope[columns].numpy() * output + head.offset[columns].numpy()
            found[:, columns] = line * one.scale + one.mean
        else:
            odds = np.exp(output - output.max(1, keepdims=True))
            probs = odds / odds.sum(1, keepdims=True)
            trust = float(head.trust[columns.start])
            found[:, columns] = trust * probs + (1 - trust) * one.mean / one.mean.sum()
    return found


def drawn(
    head: OutcomeHead, fields: Sequence[OutcomeField], means: Float64Array, draws: Float64Array
) -> FloatArray:
    """Outcomes drawn by numbers in [0, 1), (n, n_outcomes): a number's mean and a quantile of the
    residuals, a category by its probabilities; (n, n_columns), categories as 0 and 1."""
    found = np.zeros(means.shape, np.float32)
    for at, (one, columns) in enumerate(slices_of(fields)):
        if one.categories is None:
            quantiles = head.quantiles[:, columns.start].numpy() * one.scale[0]
            left = np.interp(draws[:, at], np.linspace(0, 1, N_QUANTILES), quantiles)
            found[:, columns.start] = means[:, columns.start] + left
        else:
            below = means[:, columns].cumsum(1) / means[:, columns].sum(1, keepdims=True)
            place = np.minimum((draws[:, at, None] >= below).sum(1), one.width - 1)
            found[np.arange(len(found)), columns.start + place] = 1
    return found


@torch.no_grad()
def outcomes_of_candidates(
    head: OutcomeHead, networks: Networks, space: FeatureSpace, batch: Batch
) -> Float64Array:
    """What would follow the choice of each displayed candidate, (n_candidates, n_columns)."""
    states = networks.eval().player.states(batch)
    outputs = head.eval()(batch.candidates, states, batch.display_offsets)
    return expected(head, space.outcomes, outputs.cpu())
