"""How an error ends a command: an exit code, and one line. What is refused: tests/attack/table.py."""

from __future__ import annotations

import pytest

from fastgaum.cli.app import main
from fastgaum.errors import ConfigError, LostPeerError


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (RuntimeError("first line\nsecond line"), 1, "RuntimeError: first line second line; run"),
        (KeyboardInterrupt(), 130, "fastgaum: interrupted\n"),
        (LostPeerError("another is gone"), 1, "fastgaum: error: another is gone\n"),
        (ConfigError("wrong"), 2, "fastgaum: error: wrong\n"),
    ],
)
def test_what_is_raised_is_one_line_and_a_traceback_with_debug(
    raised: BaseException,
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_model(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("fastgaum.baselines.registry.load_model", load_model)
    for debug in ([], ["--debug"]):
        assert main(["evaluate", "run", "sample", *debug]) == code
        err = capsys.readouterr().err
        assert says in err
        assert ("Traceback" in err) == bool(debug)
        assert debug or err.count("\n") == 1
