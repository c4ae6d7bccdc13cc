"""`fastgaum completion`: a script that completes commands, options, and the names that they take.

What may stand where is worked out once, from the commands themselves, and written into the script:
completing starts no Python. `shells.py` writes the scripts."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fastgaum.cli.console import say
from fastgaum.cli.manners import EVERYWHERE
from fastgaum.cli.shells import COMMANDS, FILES, LIST, SCRIPTS, WORDS, Place

if TYPE_CHECKING:
    from cyclopts import App


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], Parameter(help="the shell that will read the script")
    ],
    /,
) -> None:
    """Print the script that completes commands, options and names in a shell.

    It is read from a file, once: in bash and fish from the folders that the examples name, in zsh
    from a folder of $fpath."""
    from fastgaum.cli.app import app

    say(SCRIPTS[shell](dict(places(app, "fastgaum"))))


def places(app: App, path: str) -> Iterator[tuple[str, Place]]:
    """What may stand where: `path -` an option, `path --option` its value, `path 1` an argument,
    `path +` any further one.

    Flags, which take no value, have no place of their own.
    """
    names = [name for name in app if not name.startswith("-")]
    options = ["--help", *EVERYWHERE]
    if names:
        yield f"{path} 1", Place(COMMANDS, tuple(names))
        options += ["--version"] if path == "fastgaum" else []
        for name in names:
            yield from places(app[name], f"{path} {name}")
    else:
        position = 0
        for argument in app.assemble_argument_collection(parse_docstring=False):
            kind = argument.field_info.kind
            if kind in (kind.POSITIONAL_ONLY, kind.VAR_POSITIONAL):
                position += 1
                many = kind is kind.VAR_POSITIONAL or typing.get_origin(argument.hint) is tuple
                yield (
                    f"{path} {'+' if many else position}",
                    _values(path, argument.names[0], argument),
                )
            elif argument.names[0].startswith("-"):
                options += argument.names
                if bool not in (argument.hint, *typing.get_args(argument.hint)):
                    for name in argument.names:
                        yield f"{path} {name}", _values(path, argument.names[0], argument)
    yield f"{path} -", Place(WORDS, tuple(options))


def _values(path: str, name: str, argument: Any) -> Place:
    """What an argument may be: by its name, or else by its type."""
    for key in (f"{path.removeprefix('fastgaum ')} {name}", name):
        if key in NAMED:
            return NAMED[key]()
    choices = argument.get_choices(force=True)
    return (
        Place(WORDS, tuple(choices))
        if choices
        else Place(FILES if _is_path(argument.hint) else WORDS)
    )


def _is_path(hint: Any) -> bool:
    from pathlib import Path

    inner = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint)
        else (hint,)
    )
    return Path in inner


def _data_sets() -> tuple[str, ...]:
    from fastgaum.logs.registry import names

    return tuple(names())


def _presets() -> Place:
    from fastgaum.config import PRESETS

    return Place(WORDS, tuple(PRESETS))


def _worlds() -> Place:
    from fastgaum.logs.synthetic import PRESETS

    return Place(WORDS, tuple(PRESETS))


def _models() -> Place:
    from fastgaum.baselines.registry import MODELS

    return Place(LIST, ("all", *MODELS))


def _policies(
    kind: str, *, trained: bool | None = None, more: tuple[str, ...] = ()
) -> Callable[[], Place]:
    def place() -> Place:
        from fastgaum.policies.registry import POLICIES, TRAINED

        return Place(
            kind,
            (
                *more,
                *(name for name in POLICIES if trained is None or (name in TRAINED) == trained),
            ),
        )

    return place


def _keys(module: str, name: str) -> Callable[[], Place]:
    """Configuration keys, each with the `=` that its value follows."""

    def place() -> Place:
        from dataclasses import fields
        from importlib import import_module

        return Place(
            WORDS, tuple(f"{field.name}=" for field in fields(getattr(import_module(module), name)))
        )

    return place


def _roles() -> Place:
    from fastgaum.logs.schema import ROLE_NAMES

    return Place(WORDS, tuple(f"{role}=" for role in ROLE_NAMES))


_POLICY_KEYS = _keys("fastgaum.policies.config", "PolicyConfig")

NAMED: dict[str, Callable[[], Place]] = {
    "LOG": lambda: Place(FILES, _data_sets()),
    "--log": lambda: Place(FILES, _data_sets()),
    "NAME": lambda: Place(WORDS, _data_sets()),
    "CHOICES": lambda: Place(FILES, _data_sets()),
    "MORE": lambda: Place(FILES),
    "--datasets": lambda: Place(LIST, _data_sets()),
    "--models": _models,
    "--preset": _presets,
    "data synth --preset": _worlds,
    "--set": _keys("fastgaum.config", "Config"),
    "rl train --set": _POLICY_KEYS,
    "rl evaluate --set": _POLICY_KEYS,
    "--column": _roles,
    "--device": lambda: Place(WORDS, ("auto", "cpu", "cuda")),
    "--policy": _policies(FILES, trained=False),
    "rl train --policy": _policies(WORDS, trained=True),
    "--policies": _policies(LIST, more=("all",)),
}
"""what the names of arguments and options stand for, where their type does not say"""
