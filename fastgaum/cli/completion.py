"""`fastgaum completion`: cyclopts' own completion of commands, options and values."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.output import say


def completion_command(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], Parameter(help="the shell that will read the script")
    ],
    /,
) -> None:
    """Print the script that completes commands, options and values in a shell.

    It is read from a file, once: in bash and fish from the folders that the examples name, in zsh
    from a folder of $fpath."""
    from fastgaum.cli.app import app

    say(app.generate_completion(shell=shell))
