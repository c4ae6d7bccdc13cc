"""A few random kills of each job; `python -m tests.crash.kill` (make kill-test) does a hundred."""

from __future__ import annotations

import pytest

from tests.crash.jobs import JOBS, Job, Train
from tests.crash.kill import kill_test


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_killed_jobs_end_as_if_they_never_were(job: type[Job]) -> None:
    report = kill_test(job, kills=2 if job is Train else 1, seed=7, most_in_a_row=2)
    assert report.wrong == []
    assert report.kills >= 1
    assert report.ends >= 1
    assert report.reads >= 1
