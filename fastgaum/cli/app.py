"""The `fastgaum` command: what its subcommands are, and how an error becomes one line and an exit code.

0 done · 1 a check that the command makes failed, or a bug · 2 the input or the options are wrong · 130 interrupted by
Ctrl-C, 143 by SIGTERM

Commands are registered by their import path, so that `fastgaum --help` imports neither torch nor polars.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from fastgaum.errors import FastgaumError
from fastgaum.interrupts import Interrupted, stop_on_signals
from fastgaum.untrusted import shown

DONE, CHECK_FAILED, USER_MISTAKE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_LONGEST_SURPRISE = 200
"""characters kept of an unexpected error: torch's messages may hold a C++ stack"""

COMMANDS = {
    "data": ("fastgaum.cli.data:app", "Logs: list, info, get, audit, convert, build, synth."),
    "train": ("fastgaum.cli.train:train", "Train a user model on a log and leave a run folder."),
    "evaluate": ("fastgaum.cli.evaluate:evaluate", "Score a trained model on a split of a log."),
    "predict": ("fastgaum.cli.predict:predict", "Write utilities and choice probabilities of every candidate."),
    "simulate": ("fastgaum.cli.simulate:simulate", "Write episodes of a trained user model, as a log to read back."),
    "fidelity": ("fastgaum.cli.fidelity:fidelity", "Does a trained user model behave as a log: replay and compare."),
    "report": ("fastgaum.cli.report:report", "A page on runs: results, curves, calibration, what was learned."),
    "rl": ("fastgaum.cli.rl:app", "Policies in a learned user: train, evaluate, adapt."),
    "reproduce": ("fastgaum.cli.reproduce:reproduce", "Data sets × models × seeds: the prec@k table."),
    "bench": (
        "fastgaum.cli.bench:bench",
        "Races against rivals on this machine: speeds, ratios, shares of its ceilings.",
    ),
    "doctor": ("fastgaum.cli.doctor:doctor", "Versions, caches and a self-check, to paste into a report."),
}


def _version() -> str:
    import fastgaum

    return fastgaum.__version__


app = App(
    name="fastgaum",
    help="Learn a user from recommender logs: history encoder, generator and reward model, trained against each other."
    "\n\n`--debug` with any command shows the traceback of an error.",
    version=_version,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _name, (_path, _help) in COMMANDS.items():
    app.command(_path, name=_name, help=_help)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return its exit code; nothing escapes as a traceback."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        with stop_on_signals():
            code = app(tokens, exit_on_error=False, print_error=False)
            sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except FastgaumError as error:
        _complain(f"error: {shown(str(error))}", debug)
        return USER_MISTAKE
    except CycloptsError as error:
        command = " ".join(["fastgaum", *(error.command_chain or ())])
        _complain(f"error: {shown(str(error))} See `{command} --help`.", debug)
        return USER_MISTAKE
    except Interrupted as interrupted:
        _complain(f"interrupted{interrupted.cure and f': {interrupted.cure}'}", debug)
        return interrupted.exit_code
    except KeyboardInterrupt:
        _complain("interrupted", debug)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain when it flushes at exit: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        what = shown(str(error))[:_LONGEST_SURPRISE]
        _complain(
            f"internal error, a bug: {type(error).__name__}: {what}; run again with --debug and report the traceback,"
            " with what `fastgaum doctor` prints",
            debug,
        )
        return CHECK_FAILED


def _complain(text: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"fastgaum: {text}", file=sys.stderr)
