"""The completion scripts are read by their shells, and name every command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fastgaum.cli.app import COMMANDS, main

CHECKS = {
    "bash": ["bash", "--norc", "-n"],
    "zsh": ["zsh", "-f", "-n"],
    "fish": ["fish", "--no-config", "--no-execute"],
}


@pytest.mark.parametrize("shell", CHECKS)
def test_the_script_is_one_of_its_shell(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS if " " not in name)
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(script)
    subprocess.run([*CHECKS[shell], str(tmp_path / "script")], check=True, timeout=60)
