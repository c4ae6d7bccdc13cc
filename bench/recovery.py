"""How well a learned user recovers a known one: `python bench/recovery.py [--events 20000,200000]
[--no-click 0.3]`.

Draws the synthetic world, fits a preset, and compares on test events: rank correlation of learned
and true utility (each minus its mean over the display set, since a softmax tells nothing of the
level), total variation between the generator's and the true choice distribution, prec@1 beside the
oracle's, and the no-click calibration."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy.stats import spearmanr

from fastgaum.logs.cut import pick_rows
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.truth import oracle_scores


def recovery(n_events: int, preset: str = "fastgaum", **world: object) -> dict[str, float]:
    """Fit a preset on a fresh world; figures on its test split, by name."""
    log, truth = synthesise(n_events, **world)  # type: ignore[arg-type]
    model = UserModel.from_preset(preset)
    started = time.perf_counter()
    model.fit(log)
    seconds = time.perf_counter() - started
    _, events = pick_rows(log.session_offsets, log.sessions_in("test"))
    offsets, candidates = pick_rows(log.display_offsets, events)
    frame = model.predict(log, "test")
    size = np.diff(offsets)

    def centred(values: np.ndarray) -> np.ndarray:
        return values - np.repeat(np.add.reduceat(values, offsets[:-1]) / size, size)

    generated = frame["generator_probability"].to_numpy()
    true = truth.probability[candidates]
    generated_none = np.clip(1 - np.add.reduceat(generated, offsets[:-1]), 0, 1)
    true_none = np.clip(1 - np.add.reduceat(true, offsets[:-1]), 0, 1)
    evaluation = model.evaluate(log, "test")
    oracle = oracle_scores(log, truth)
    figures = {
        "rank correlation": float(
            spearmanr(centred(frame["utility"].to_numpy()), centred(truth.utility[candidates]))[0]
        ),
        # ½ Σ |p − q| over candidates and no click
        "total variation": float(
            0.5 * (np.abs(generated - true).sum() + np.abs(generated_none - true_none).sum())
        )
        / len(size),
        "generator prec@1": evaluation.heads["generator"].precision[1].mean,
        "reward prec@1": evaluation.heads["reward"].precision[1].mean,
        "oracle prec@1": 100 * oracle.precision[1],
        "gap": float(model.evaluate(log, "train").gap or 0.0),
        "seconds": seconds,
    }
    if model.outside:
        order = np.argsort(generated_none)
        deciles = [
            abs(generated_none[d].mean() - true_none[d].mean()) for d in np.array_split(order, 10)
        ]
        figures["no-click error, points"] = 100 * float(
            abs(generated_none.mean() - true_none.mean())
        )
        figures["no-click worst decile, points"] = 100 * float(max(deciles))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default="20000,200000")
    parser.add_argument("--preset", default="fastgaum")
    parser.add_argument("--no-click", type=float, default=0.0)
    parser.add_argument("--rule", default="shannon")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for n in map(int, arguments.events.split(",")):
        found = recovery(n, arguments.preset, no_click=arguments.no_click, rule=arguments.rule)
        print(f"{n:,} events, {arguments.rule}, no click {arguments.no_click:.0%}:")
        print("".join(f"  {name:32} {value:.4f}\n" for name, value in found.items()), flush=True)
