"""Examples at the foot of each command's help; a test hands each to the parser."""

from __future__ import annotations

from fastgaum.cli.options import COMMON_OPTIONS

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "fastgaum train sample",
        "fastgaum evaluate runs/sample sample",
        "fastgaum report runs/sample -o report.html",
    ),
    "train": (
        "fastgaum train clicks.csv -o runs/mine",
        "fastgaum train shop.parquet -o runs/shop --column item=sku --candidate-field price "
        "--item-table items.csv",
        "fastgaum train clicks.csv -o runs/mine --resume",
        "fastgaum train july.csv -o runs/july --from runs/june",
    ),
    "evaluate": ("fastgaum evaluate runs/mine clicks.csv --split validation --json figures.json",),
    "predict": ("fastgaum predict runs/mine clicks.csv -o probabilities.parquet",),
    "what-if": (
        "fastgaum what-if runs/trips trips.parquet --scale cost=.9 --items pt",
        "fastgaum what-if runs/trips trips.parquet --drop pt --json shares.json",
        "fastgaum what-if runs/trips trips.parquet --elasticity cost --worth time=cost",
    ),
    "simulate": (
        "fastgaum simulate runs/mine -o episodes.parquet --episodes 5000 --slate-size 5",
        "fastgaum simulate runs/mine -o trained.parquet --policy policies/mine --explore 0.1",
    ),
    "serve": ("fastgaum serve runs/shop --http 8080 --item-table items.csv",),
    "fidelity": ("fastgaum fidelity runs/mine clicks.csv --plot fidelity.svg",),
    "report": (
        "fastgaum report runs/mine -o report.html",
        "fastgaum report runs/mine runs/wide --compare -o compared.html",
    ),
    "ope": (
        "fastgaum ope clicks.csv --policy greedy --run runs/mine --propensity shown_with",
        "fastgaum ope clicks.csv --policy policies/mine --run runs/mine",
    ),
    "compare": (
        "fastgaum compare clicks.csv --models logit,wd-ccf,fastgaum --seeds 3 --markdown table.md",
        "fastgaum compare shop.parquet --column item=sku --candidate-field price --resplit 1..5",
    ),
    "reproduce": (
        "fastgaum reproduce --datasets yelp,taobao --models all --json table.json",
        "fastgaum reproduce --datasets yelp --models fastgaum,logit --add rows.json",
    ),
    "bench": (
        "fastgaum bench --list",
        "fastgaum bench lstm round --threads 2 --json bench.json",
    ),
    "warmup": ("fastgaum warmup",),
    "doctor": ("fastgaum doctor --json doctor.json",),
    "completion": (
        "fastgaum completion bash > ~/.local/share/bash-completion/completions/fastgaum",
        "fastgaum completion fish > ~/.config/fish/completions/fastgaum.fish",
    ),
    "data": (
        "fastgaum data audit clicks.csv",
        "fastgaum data synth -o world.parquet --events 5000 --no-click 0.3",
    ),
    "data list": ("fastgaum data list --data-dir logs --json -",),
    "data info": ("fastgaum data info yelp",),
    "data get": ("fastgaum data get yelp --from downloads/yelp.txt",),
    "data audit": ("fastgaum data audit shop.parquet --column item=sku --candidate-field price",),
    "data plan": (
        "fastgaum data plan clicks.csv",
        "fastgaum data plan displays.parquet --sample-users .01 --json plan.json",
    ),
    "data convert": ("fastgaum data convert clicks.csv -o clicks.parquet --split-by time",),
    "data build": ("fastgaum data build ml-1m -o films.parquet",),
    "data synth": ("fastgaum data synth -o ranked --order popularity --examination 1",),
    "rl": (
        "fastgaum rl train runs/mine -o policies/mine",
        "fastgaum rl evaluate runs/mine --policies random,greedy,cascade-dqn",
    ),
    "rl train": ("fastgaum rl train runs/mine -o policies/cascade --policy cascade-dqn -k 5",),
    "rl evaluate": ("fastgaum rl evaluate runs/half --in runs/other-half --json table.json",),
}


def epilogue(command: str) -> str:
    """The foot of a command's help."""
    lines = ["Examples:", *map(_typed, EXAMPLES[command]), "", "With any command:"]
    return "\n".join(
        [*lines, *(f"  {option:<11}  {meaning}" for option, meaning in COMMON_OPTIONS.items())]
    )


def _typed(line: str) -> str:
    lines = [" "]
    for part in line.replace(" -", "\n-").split("\n"):
        if len(lines[-1]) + 1 + len(part) > 77:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {part}"
    return "\n".join(lines)
