"""The bundled sample: train, look at the figures, predict, save, load: `python quickstart.py`."""

from typing import Any

import fastgaum as fg


def main(**settings: Any) -> float:
    """Train with a preset, with changes; return the reward model's prec@1 on the test split, in
    percent."""
    log = fg.load("sample")
    print(f"{log.n_events} events of {log.n_sessions} sessions over {log.n_items} items")

    model = fg.UserModel.from_preset("fastgaum", **settings)
    table = model.fit(log).history_  # a row per epoch, chosen on the validation split
    print(table.filter("best").tail(1).select("epoch", "phase", "val_prec1", "gap"))

    evaluation = model.evaluate(log, split="test")
    for head, figures in evaluation.heads.items():
        prec1 = figures.precision[1]
        print(
            f"{head}: prec@1 {prec1.mean:.1f} [{prec1.low:.1f}, {prec1.high:.1f}], NLL "
            f"{figures.nll.mean:.3f}"
        )
    print(f"a random order: {evaluation.random[1]:.1f}")

    model.save("user.safetensors")
    again = fg.UserModel.load("user.safetensors")
    print(again.predict(log, split="test").head(5))  # a row per displayed candidate
    return evaluation.heads["reward"].precision[1].mean


if __name__ == "__main__":
    main()
