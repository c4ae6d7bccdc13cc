"""`fastgaum completion`: cyclopts' own completion of commands, options and values."""

from __future__ import annotations

from typing import Literal

from fastgaum.cli.output import say


def completion_command(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script that completes commands, options and names in bash, zsh or fish.

    Args:
        shell: the shell that will read the script
    """
    from fastgaum.cli.app import app

    say(app.generate_completion(shell=shell))
