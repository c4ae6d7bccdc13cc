"""The `fastgaum` command: its subcommands, and how an error becomes one line and an exit code.

0 done · 1 a check failed, another process of a training is gone, or a bug · 2 the input or the
options are wrong · 130 interrupted by Ctrl-C, 143 by SIGTERM

Commands are registered by their import path: the help imports neither torch nor polars. A command's
help is its docstring."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, MissingArgumentError

from fastgaum.cli.manual import EXAMPLES, epilogue
from fastgaum.cli.options import COMMON, read_common
from fastgaum.cli.output import note, take_notes
from fastgaum.errors import FastgaumError, LostPeerError, too_long
from fastgaum.interrupts import Interrupted, stop_on_signals
from fastgaum.models.fit_bar import show_bars
from fastgaum.untrusted import shown

DONE, CHECK_FAILED, USER_MISTAKE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_LONGEST_SURPRISE = 200
"""of an unexpected error: torch's messages may hold a C++ stack"""

GROUPS = {
    "data": "Find, check, convert and make logs.",
    "rl": "Train and test policies on simulated users.",
}
COMMANDS = [name for name in EXAMPLES if name]
READ_AS_THE_RUN = ("evaluate", "predict", "what-if", "simulate", "fidelity", "report")
"""commands that read a log by what the run knows"""


def _version() -> str:
    import fastgaum

    return fastgaum.__version__


app = App(
    name="fastgaum",
    help="Learn how users choose from recommender logs: predict, explain and simulate choices.",
    help_epilogue=epilogue(""),
    # markdown would take a quarter of the time that the help takes
    help_format="plaintext",
    version=_version,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def _help(module: str, function: str) -> str:
    """The docstring of a command without its arguments, read from the file: an import of all
    commands would take longer than the first page may."""
    text = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    start = text.index(f"def {function}(")
    found = re.search(r'"""(.+?)(\n\n    Args:|""")', text[start:], re.DOTALL)
    assert found is not None
    return "\n\n".join(" ".join(part.split()) for part in found[1].split("\n\n"))


for _name in COMMANDS:
    _foot = epilogue(_name)
    if _name in GROUPS:
        app.command(App(name=_name, help=GROUPS[_name], help_epilogue=_foot))
        continue
    _group, _, _word = _name.rpartition(" ")
    _module = (_group or _word).replace("-", "_")
    _function = f"{_name}_command".replace(" ", "_").replace("-", "_")
    _text = _help(_module, _function)
    if _name in READ_AS_THE_RUN:
        _text += (
            "\n\nThe log is read with the options of the run. If it needs others, convert it first "
            "(`fastgaum data convert`)."
        )
    _parent = app[_group] if _group else app
    _place = f"fastgaum.cli.{_module}:{_function}"
    _parent.command(_place, name=_word, help=_text, help_epilogue=_foot)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing escapes as a traceback."""
    tokens = read_common(sys.argv[1:] if argv is None else argv)
    # a command has its own
    show_bars(False)
    try:
        with stop_on_signals():
            code = app(tokens, exit_on_error=False, print_error=False)
            for waiting in take_notes():
                note(waiting)
            sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain when it flushes at exit: give it
        # somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        code, text = _ending(error)
        if COMMON.debug:
            traceback.print_exc()
        print(f"fastgaum: {text}", file=sys.stderr)
        return code
    finally:
        # tests run several command lines in a process
        read_common(())
        take_notes()
        show_bars(True)


def _ending(error: BaseException) -> tuple[int, str]:
    if isinstance(error, Interrupted):
        return error.exit_code, f"interrupted{error.cure and f': {error.cure}'}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        error = too_long(error.filename or "")
    if isinstance(error, CycloptsError):
        return USER_MISTAKE, f"error: {shown(_of_parser(error))}"
    if isinstance(error, FastgaumError):
        # the process that is lost says why; here nothing was wrong
        code = CHECK_FAILED if isinstance(error, LostPeerError) else USER_MISTAKE
        return code, f"error: {shown(str(error))}"
    what = shown(str(error))[:_LONGEST_SURPRISE]
    return CHECK_FAILED, (
        f"internal error, a bug: {type(error).__name__}: {what}; run again with --debug and "
        "report the traceback, with what `fastgaum doctor` prints"
    )


def _of_parser(error: CycloptsError) -> str:
    command, argument = " ".join(["fastgaum", *(error.command_chain or ())]), error.argument
    said = str(error)
    keyword = error.keyword if isinstance(error, MissingArgumentError) else None
    if isinstance(error, MissingArgumentError) and argument and not (argument.tokens or keyword):
        meaning = f" ({argument.parameter.help})" if argument.parameter.help else ""
        said = f"`{command}` needs {' or '.join(argument.names)}{meaning}."
    return f"{said} See `{command} --help`."
