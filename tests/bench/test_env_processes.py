"""The bench of worker processes at a small size."""

from __future__ import annotations

from typing import Any

from fastgaum import threads
from fastgaum.bench.env_processes import measure, table


def test_every_place_is_measured() -> None:
    before = threads.get_threads()
    result = measure(full=False, rounds=2, most=1)
    assert threads.get_threads() == before
    assert [row.get("of") for row in result["rows"]] == ["AsyncVectorEnv", None, None]
    assert [(row["users"], row["threads"], row["processes"]) for row in result["rows"]] == [
        (1, 1, 1),
        (256, 1, None),
        (256, 1, 1),
    ]
    assert all(row["user_steps_per_second"] > 0 for row in result["rows"])


def test_the_table_says_where_users_lived() -> None:
    def row(**more: Any) -> dict[str, Any]:
        return {"world": "w", "users": 512, "user_steps_per_second": 1234.6, "spread": 0.1, **more}

    machine = {"processor": "a processor", "cores": 2}
    rows = [
        row(threads=1, processes=None),
        row(threads=2, processes=None),
        row(threads=2, processes=1),
        row(threads=2, processes=2),
        row(threads=2, processes=2, of="AsyncVectorEnv"),
    ]
    text = table({"machine": machine, "load": 0.26, "rows": rows})
    assert [line.split(" | ")[2] for line in text.splitlines()[4:]] == [
        "this process, 1 thread",
        "this process, 2 threads",
        "1 worker, 2 threads each",
        "2 workers, 1 thread each",
        "AsyncVectorEnv, 2 processes of one user",
    ]
    assert text.startswith("a processor, 2 cores, load 0.3 while")
    assert "| 512 | this process, 1 thread | 1,235 | 10% |" in text
