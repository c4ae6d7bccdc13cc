"""`fastgaum ope`: what a policy would have earned in a log that another one made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastgaum.arrays import IntArray
from fastgaum.cli.options import (
    NO_FILES,
    AllowSeenUsers,
    HeadOption,
    ScoredSplit,
    TableFiles,
    Threads,
    use_threads,
)
from fastgaum.cli.output import check_outputs, note, show_block, write_tables
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, checked_users
from fastgaum.errors import ConfigError, LogFormatError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fastgaum.logs.log import SessionLog


def ope_command(
    source: Log,
    /,
    *,
    policy: str,
    run: Path | None = None,
    epsilon: float = 0.0,
    propensity: str | None = None,
    pool: Path | None = None,
    value: str | None = None,
    split: ScoredSplit = "test",
    head: HeadOption = None,
    seed: int = 0,
    files: TableFiles = NO_FILES,
    threads: Threads = None,
    allow_seen_users: AllowSeenUsers = False,
    reading: Reading = AS_IT_IS,
) -> None:
    """Estimate what a policy would have earned in a log's events.

    Args:
        policy: random, popular, greedy, or a folder written by `fastgaum rl train`
        run: a run folder or a model file: more estimates, by its users
        epsilon: probability that the policy shows a random set of the pool instead of its own
        propensity: the column with the probability of each display; random sets if not given
        pool: a file of the items to choose from, one id per line; all items if not given
        value: the column with what a click is worth, averaged by item; 1 if not given
        seed: seed of random displays
    """
    check_outputs(files.json, files.markdown)
    import numpy as np

    from fastgaum.logs.cut import slice_sessions
    from fastgaum.logs.vocabulary import Vocabulary
    from fastgaum.machine import machine_facts
    from fastgaum.models.user_model import UserModel
    from fastgaum.ope.replay import Target
    from fastgaum.ope.values import off_policy_block, off_policy_values
    from fastgaum.policies.heuristics import Popular
    from fastgaum.policies.registry import RULE_NAMES, load_policy, make_policy
    from fastgaum.worlds.learned_world import LearnedWorld
    from fastgaum.worlds.replay import world_of

    if policy not in RULE_NAMES and run is None:
        raise ConfigError(
            f"'{policy}' was trained in the world of a run: give it (--run)"
            f"{did_you_mean(policy, RULE_NAMES)}"
        )
    use_threads(threads)
    model = None if run is None else UserModel.load(run, device="cpu")
    reading = reading if run is None else reading.or_of_run(run, source)
    with Bar(f"reading {source}"):
        whole = _with_columns(reading, source, propensity, value).load(source)
    # a model reads the two columns only if it was told to
    read = {*reading.options.context_fields, *reading.options.candidate_fields}
    left_out = {propensity, value} - read
    columns = {name: one for name, one in whole.columns.items() if name not in left_out}
    log = dataclasses.replace(whole, columns=columns)
    rows = log.sessions_in(split)
    propensities = of_items = None
    if propensity is not None:
        propensities = _numbers(slice_sessions(whole, rows), propensity, "event")
    if value is not None:
        # an item that this split never displays has its worth from the others, or none
        counts = np.bincount(log.items, minlength=log.n_items)
        sums = np.bincount(log.items, _numbers(whole, value, "candidate"), log.n_items)
        of_items = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    items = None if pool is None else _pool(pool, log)
    seen = None if model is None else checked_users(model, log, split, allow_seen_users)
    world = None if model is None else world_of(model, log, head)
    if policy in RULE_NAMES or model is None:
        catalogue = log if world is None else world
        made = Popular.of_log(catalogue, log) if policy == Popular.name else make_policy(policy)
        target = Target(made, epsilon)
    else:
        # what the log knows of the policy's pool; further items of the log come last in its world
        own = LearnedWorld(model, head, log=log)
        saved = load_policy(policy, own)
        known = saved.setting.pool.pinned(own.n_items).items
        codes = Vocabulary(log.item_ids).codes(own.item_ids.gather(list(known)))
        target = Target(saved.policy, epsilon, saved.setting.k, codes[codes >= 0])
    with Bar("estimating"):
        result = off_policy_values(
            slice_sessions(log, rows),
            target,
            propensities=propensities,
            pool=items,
            world=world,
            item_values=of_items,
            seed=seed,
        )
    seen_users = seen and seen.to_dict()
    result = {"machine": machine_facts(seed), "split": split, "seen_users": seen_users, **result}
    block = off_policy_block(result)
    write_tables(files, result, [block])
    show_block(block)
    if seen is not None:
        note(str(seen))


def _with_columns(
    reading: Reading, source: str, propensity: str | None, value: str | None
) -> Reading:
    """Read the propensity and the value too; a saved log holds what it holds."""
    from fastgaum.logs.datasets import resolve
    from fastgaum.logs.options import ReadOptions
    from fastgaum.logs.store import is_saved_log
    from fastgaum.logs.tables import open_known

    found = resolve(source, reading.data_dir)
    if is_saved_log(found.path):
        return reading
    # a field that is added here replaces none of those that a registry entry or a layout brings
    options = reading.options.over(found.options)
    layout = open_known(found.path)[1]
    options = options if layout is None else options.over(layout.options)
    added: dict[str, Any] = {}
    if propensity is not None and propensity not in options.context_fields:
        added["context_fields"] = (*options.context_fields, propensity)
    if value is not None and value not in options.candidate_fields:
        added["candidate_fields"] = (*options.candidate_fields, value)
    return reading.with_options(ReadOptions.of(**added).over(reading.options))


def _numbers(
    log: SessionLog, column: str, of: Literal["event", "candidate"]
) -> npt.NDArray[np.float64]:
    import numpy as np

    fields = log.columns_of(of)
    if column not in fields:
        raise LogFormatError(
            f"the saved log has no column '{column}' of one value per {of} (it has "
            f"{', '.join(fields) or 'none'}): convert it anew with that field"
        )
    values, texts = fields[column].values, fields[column].texts
    if texts is None:
        return np.asarray(values, np.float64)
    # whole numbers are read as categories
    numbers = texts.gather(np.maximum(values, 0)).cast(float, strict=False)
    if (values < 0).any() or numbers.null_count():
        raise LogFormatError(
            f"column '{column}' holds missing values or text, numbers are required"
        )
    return numbers.to_numpy()


def _pool(file: Path, log: SessionLog) -> IntArray:
    import polars as pl

    from fastgaum.logs.vocabulary import Vocabulary
    from fastgaum.untrusted import read_text

    try:
        lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the pool '{file}' ({error}): give a text file") from error
    codes = Vocabulary(log.item_ids).codes(pl.Series("item", lines, dtype=pl.String))
    if (codes < 0).any():
        unknown = lines[int((codes < 0).argmax())]
        raise ConfigError(
            f"{int((codes < 0).sum()):,} items of the pool '{file}' are not in log '{log.name}' "
            f"('{unknown}' …): name items of the log"
        )
    return codes
