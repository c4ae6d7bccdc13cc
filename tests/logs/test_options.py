"""ReadOptions: what was given comes first, JSON keeps it, and the command line is made of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.cli.reading import GivenOptions
from fastgaum.errors import ConfigError
from fastgaum.logs.options import (
    FILES,
    OPTIONS,
    ReadKeywords,
    ReadOptions,
    option_name,
)

NAMES = st.text("abc_=: é", min_size=1, max_size=5)
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.dictionaries(st.sampled_from(["item", "event", "user"]), NAMES, max_size=2),
        "candidate_fields": st.lists(NAMES, max_size=3),
        "context_fields": st.lists(NAMES, max_size=3),
        "time_fields": st.lists(st.sampled_from(["gap", "hour", "day"]), max_size=3),
        "past": st.sampled_from(["history", "", None]),
        "available": st.sampled_from(["could", "", None]),
        "weight": st.sampled_from(["share", "", None]),
        "actions": st.sampled_from(["/actions.csv", None]),
        "item_table": st.sampled_from(["/items.csv", None]),
        "user_table": st.sampled_from(["/users.csv", None]),
        "ordered": st.booleans(),
        "clicks": st.sampled_from(["error", "first", "each"]),
        "outside": st.sampled_from(["error", "none", "append", "drop"]),
        "split": st.sampled_from(["auto", "file", "user", "half", "other-half", "time"]),
        "split_seed": st.integers(0, 9),
        "sample_users": st.floats(0, 1, exclude_min=True),
        "name": NAMES,
    },
)


@given(GIVEN)
def test_json_keeps_what_was_given(values: dict[str, Any]) -> None:
    # a blank around the name of a role's column is not kept
    columns = {role: name.strip() for role, name in values.get("columns", {}).items()}
    if "columns" in values:
        values["columns"] = {role: name for role, name in columns.items() if name}
    options = ReadOptions.of(**values)
    again = ReadOptions.from_json(json.loads(json.dumps(options.to_json())))
    assert again == options
    assert again.given == options.given == frozenset(values)
    assert again.recorded == again.given


@given(GIVEN, GIVEN)
def test_what_was_given_comes_first(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Also where it is the default: `split_seed=0` replaces the 5 of a run."""
    over = ReadOptions.of(**ours).over(ReadOptions.of(**theirs))
    merged = {**theirs, **ours}
    if "columns" in merged:
        merged["columns"] = {**theirs.get("columns", {}), **ours.get("columns", {})}
    assert over == ReadOptions.of(**merged)
    assert over.given == frozenset(ours) | frozenset(theirs)


def test_columns_of_another_layout_replace_those_of_the_former() -> None:
    """Else another column became the choice."""
    former = ReadOptions.of(columns={"chosen": "bought", "item": "sku"})
    ours = {"chosen_index": "at", "items": "l"}
    assert ReadOptions.of(columns=ours).over(former).columns == ours


def test_every_option_is_a_keyword_and_has_its_option_on_the_command_line() -> None:
    assert set(ReadKeywords.__annotations__) == set(OPTIONS)
    about = {"given", "recorded", "means", "categories"}
    on_the_line = {one.name for one in dataclasses.fields(GivenOptions)} - about
    assert on_the_line == set(OPTIONS)
    assert len(set(map(option_name, OPTIONS))) == len(OPTIONS)


def test_an_item_table_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {name: f"{name}.csv" for name in FILES}
    saved = ReadOptions.of(**named).to_json()  # type: ignore[arg-type]
    assert saved == {name: str(tmp_path / file) for name, file in named.items()}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"splits": "user"}, r"no option of reading is called 'splits'.*did you mean 'split'"),
        ({"split": "users"}, r"split is 'users'.*did you mean 'user'"),
        ({"clicks": "last"}, "clicks is 'last', one of error, first, each"),
        ({"time_fields": ["hours"]}, "time_fields has 'hours', known are gap, hour, day; did you"),
        ({"candidate_fields": "price"}, "candidate_fields is 'price', expected a list of names"),
        ({"context_fields": [1]}, "context_fields is a tuple, expected a list of names"),
        ({"columns": ["item=sku"]}, "columns is a list, expected"),
        ({"columns": {"item": 3}}, "columns is a dict, expected `str`, got `int`"),
        ({"user_table": 3}, "user_table is 3, expected .*give the path of a file"),
        ({"item_table": [1]}, "item_table is a list, expected .*give the path of a file"),
        ({"ordered": "yes"}, "ordered is 'yes', expected `bool`"),
        ({"split_seed": 1.5}, "split_seed is 1.5, expected `int`"),
        ({"sample_users": 0}, "sample_users is 0.0, a share of the users above 0 and at most 1"),
        ({"sample_users": 1.5}, "sample_users is 1.5, a share"),
        ({"sample_users": float("nan")}, "sample_users is nan, a share"),
        ({"sample_users": True}, "sample_users is True, expected `float`"),
        ({"name": 3}, "name is 3, expected `str"),
        ({"split": [1]}, "split is a list, expected `str`"),
    ],
)
def test_unknown_options_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ReadOptions.of(**values)
