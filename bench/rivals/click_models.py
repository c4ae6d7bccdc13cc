"""CLAX's click models on clara2, beside our rows: UBM and PBM of the PyPI package `clax-models`.

    make click-models                    validation rows, some minutes
    make click-models ARGUMENTS=--test   and the test rows: once, when all is decided

It prints a table and writes docs/tables/click-models.json, or another file. CLAX wants versions of
its own, in an environment that the Makefile makes.

A model is as CLAX defines it, trained on all clicks of the training lists by CLAX's own loss. Its
attraction is a bias and one number per pair of query and document, pulled to 0 by an L2 prior, and,
where it has the session flags (`click_lists.FLAGS`), a weight of each. Its trainer does not bring
back its best epoch, so the loop is here. Strength of the prior, flags and epoch are chosen on the
validation NLL of the topmost click."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.baselines.registry import make_model
from fastgaum.bench.click_lists import (
    FLAGS,
    ClickLists,
    click_lists,
    first_click,
)
from fastgaum.logs.datasets import resolve
from fastgaum.logs.log import Column, SessionLog
from fastgaum.logs.read import load
from fastgaum.machine import machine_facts
from fastgaum.metrics.intervals import bootstrap_mean

# CLAX and jax are imported where they are used: the file is a part of the package, whose
# environment does without them
MODELS = ("UBM", "PBM")
STRENGTHS = (0.1, 0.3, 1.0)
"""of the L2 prior: 1 weighs a pair's number as a standard normal one"""
SEEDS = 2
"""their NLL differ by a ten-thousandth"""
EPOCHS, PATIENCE, BATCH, LR = 200, 10, 512, 0.02


@dataclass(frozen=True)
class Setting:
    model: str
    strength: float
    flags: bool


def attraction(n_pairs: int, rngs):
    """A bias, a number of each pair, and a weight of each flag."""
    import jax.numpy as jnp
    from clax.parameters import EmbeddingParameter, EmbeddingParameterConfig, Parameter
    from flax import nnx

    class Attraction(Parameter):
        def __init__(self) -> None:
            self.pairs = EmbeddingParameter(
                EmbeddingParameterConfig(use_feature="query_doc_ids", parameters=n_pairs),
                rngs=rngs,
            )
            self.flags = nnx.Param(jnp.zeros(len(FLAGS)))

        def logit(self, batch):
            return self.pairs.logit(batch) + batch["flags"] @ self.flags.value

        def prob(self, batch):
            return nnx.sigmoid(self.logit(batch))

        def log_prob(self, batch):
            return nnx.log_sigmoid(self.logit(batch))

    return Attraction()


def batch_of(lists: ClickLists, rows=slice(None), flags: bool = True) -> dict:
    import jax.numpy as jnp

    return {
        "positions": jnp.asarray(lists.places[rows]),
        "query_doc_ids": jnp.asarray(lists.pairs[rows]),
        "clicks": jnp.asarray(lists.clicks[rows]),
        "mask": jnp.asarray(lists.places[rows] > 0),
        "flags": jnp.asarray(lists.flags[rows] * flags),
    }


def made(setting: Setting, lists: ClickLists, seed: int):
    from clax.models.pbm import PositionBasedModel
    from clax.models.ubm import UserBrowsingModel
    from flax import nnx

    rngs = nnx.Rngs(seed)
    kind = {"UBM": UserBrowsingModel, "PBM": PositionBasedModel}[setting.model]
    return kind(
        positions=lists.places.shape[1], attraction=attraction(lists.n_pairs, rngs), rngs=rngs
    )


@functools.cache
def compiled():
    from flax import nnx

    return nnx.jit(lambda model, batch: model.predict_conditional_clicks(batch))


def log_probs(model, lists: ClickLists, flags: bool) -> np.ndarray:
    """Log probability of each place of the topmost click, and of none, (n_lists, n_places + 1)."""
    batch = batch_of(lists, flags=flags)
    batch["clicks"] = 0 * batch["clicks"]
    return first_click(np.asarray(compiled()(model, batch), dtype=np.float64))


def nll_of(log_probs: np.ndarray, places: np.ndarray) -> np.ndarray:
    """NLL of each list, nats; place -1 is no click."""
    return -np.take_along_axis(log_probs, places[:, None].astype(np.int64), axis=1)[:, 0]


def fit(setting: Setting, train: ClickLists, validation: ClickLists, seed: int):
    """The model of its best epoch by the validation NLL of the topmost click, and that NLL."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    model = made(setting, train, seed)
    optimizer = nnx.ModelAndOptimizer(model, optax.adam(LR))
    n, order = len(train.choices), np.random.default_rng(seed)

    @nnx.jit
    def step(model, optimizer, batch):
        def loss(model):
            # CLAX's loss, summed over a list's places
            data = model.compute_loss(batch, aggregate=False).sum(axis=-1).mean()
            numbers = model.attraction.pairs.embeddings.embedding.value
            return data + setting.strength * (numbers**2).sum() / (2 * n)

        optimizer.update(nnx.grad(loss)(model))

    best, best_state, waited = np.inf, None, 0
    for _ in range(EPOCHS):
        rows = order.permutation(n)
        for start in range(0, n - BATCH + 1, BATCH):
            step(model, optimizer, batch_of(train, rows[start : start + BATCH], setting.flags))
        nll = nll_of(log_probs(model, validation, setting.flags), validation.topmost).mean()
        if nll < best - 1e-5:
            best, waited = nll, 0
            best_state = jax.tree.map(jnp.copy, nnx.state(model))
        else:
            waited += 1
        if waited == PATIENCE:
            break
    nnx.update(model, best_state)
    return model, float(best)


def row_of(setting: Setting, models: list, part: ClickLists, split: str) -> dict:
    probs = [log_probs(model, part, setting.flags) for model in models]
    # no two places tie: each has another examination
    hits = np.array([100.0 * (p[:, :-1].argmax(axis=1) == part.choices) for p in probs])
    hits[:, part.choices < 0] = np.nan
    by_seed = {
        name: np.array([nll_of(p, places) for p in probs])
        for name, places in {"nll": part.choices, "nll_topmost": part.topmost}.items()
    }
    nll = bootstrap_mean(by_seed["nll"], part.users)
    prec1 = bootstrap_mean(hits, part.users)
    row = figures_of(f"CLAX {setting.model}", split, setting.flags, prec1, nll)
    return row | {
        "strength": setting.strength,
        "seeds": len(models),
        "nll_topmost": float(by_seed["nll_topmost"].mean()),
        "n_events": len(part.choices),
    }


def figures_of(model: str, split: str, flags: bool, prec1, nll) -> dict:
    return {
        "model": model,
        "split": split,
        "flags": flags,
        "strength": None,
        "seeds": 1,
        "prec1": prec1.mean,
        "prec1_ci": [prec1.low, prec1.high],
        "nll": nll.mean,
        "nll_ci": [nll.low, nll.high],
        "nll_topmost": None,
    }


def logit_rows(log: SessionLog, lists: ClickLists, splits: list[str]) -> list[dict]:
    """Rows of our linear model, one seed, without the flags and with them."""
    of_candidates = lists.flags[lists.places > 0]
    fields = {n: Column("candidate", of_candidates[:, at].copy()) for at, n in enumerate(FLAGS)}
    rows = []
    for flags, one in [(False, log), (True, replace(log, columns={**log.columns, **fields}))]:
        started = time.perf_counter()
        model = make_model("logit", {"protocol": "bags", "seed": 0}, "cpu")
        model.fit(one)
        seconds = time.perf_counter() - started
        for split in splits:
            head = model.evaluate(one, split).heads["reward"]
            precision, nll = head.precision[1], head.nll
            row = figures_of("our logit", split, flags, precision, nll)
            rows.append(row | {"n_events": nll.n_events, "seconds": seconds})
            print(
                f"our logit flags={flags} {split}: prec@1 {precision.mean:.1f}, NLL {nll.mean:.4f}"
            )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--test", action="store_true", help="read the test lists too, once")
    options.add_argument("--data-dir", default=None, help="folder of the registry's logs")
    options.add_argument("--json", default="docs/tables/click-models.json")
    chosen = options.parse_args()
    log = load("clara2", data_dir=chosen.data_dir)
    clicked = pl.read_parquet(resolve("clara2", chosen.data_dir).path)
    lists = click_lists(log, clicked.select("session", "event", "clicked"))
    train, validation = lists.of(0), lists.of(1)
    splits = ["validation", *["test"] * chosen.test]
    tried, rows = [], logit_rows(log, lists, splits)
    for name, flags in itertools.product(MODELS, (False, True)):
        found = []
        for strength in STRENGTHS:
            setting = Setting(name, strength, flags)
            started = time.perf_counter()
            model, nll = fit(setting, train, validation, 0)
            seconds = time.perf_counter() - started
            found.append((nll, setting, model, seconds))
            tried.append({**vars(setting), "nll": nll})
            print(f"{name} flags={flags} L2={strength:g}: {nll:.4f} ({seconds:.0f} s)")
        _, setting, first, seconds = min(found, key=lambda one: one[0])
        others = [fit(setting, train, validation, seed)[0] for seed in range(1, SEEDS)]
        models = [first, *others]
        for split in splits:
            row = row_of(setting, models, lists.of(2) if split == "test" else validation, split)
            rows.append(row | {"seconds": seconds})
            print(
                f"{row['model']} flags={flags} {split}: prec@1 {row['prec1']:.1f}, "
                f"NLL {row['nll']:.4f}, of the topmost click {row['nll_topmost']:.4f}"
            )
    result = {
        "machine": machine_facts(),
        "intervals": "sessions and seeds",
        "dataset": "clara2",
        "fingerprint": log.fingerprint,
        "rows": rows,
        "tried": tried,
    }
    Path(chosen.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
