"""The `fastgaum` command: its subcommands, and how an error becomes one line and an exit code.

0 done · 1 a check failed, another process of a training is gone, or a bug · 2 the input or the
options are wrong · 130 interrupted by Ctrl-C, 143 by SIGTERM

Commands are registered by their import path: the help imports neither torch nor polars."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, MissingArgumentError

from fastgaum.cli.manual import epilogue
from fastgaum.cli.options import COMMON, read_common
from fastgaum.cli.output import note, take_notes
from fastgaum.errors import FastgaumError, LostPeerError, too_long
from fastgaum.interrupts import Interrupted, stop_on_signals
from fastgaum.untrusted import shown

DONE, CHECK_FAILED, USER_MISTAKE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_LONGEST_SURPRISE = 200
"""of an unexpected error: torch's messages may hold a C++ stack"""

# the help is here and not in the commands' docstrings: the first page would import all of them
COMMANDS = {
    "data": "Find, check, convert and make logs.",
    "data list": "List the logs that have a name, and whether they are on this machine.",
    "data info": "Describe a log: origin, terms of use, sizes, checksums, and its card.",
    "data get": "Download a log, or copy one that you have. Its sha256 must be the registry's.",
    "data audit": "Look for traps in a log: simple rules that find the clicked item without "
    "knowing the user. Also print the floors, which a model has to beat.\n\nA trap is a finding, "
    "not a failure: the exit code is 0.",
    "data plan": "Say what more events would gain: fit on 1/16, 1/8, 1/4, 1/2 and all of the "
    "training users, and print the validation NLL that is expected of 2, 4 and 10 times as many "
    "events.\n\nOne setting is chosen on half of the users and fitted 15 times, without folds: "
    "about four fits of the whole log, beside the choice.",
    "data convert": "Read a log, check it, and write it: as one file in the long layout, or as a "
    "folder that loads at once.",
    "data build": "Make a log from choices whose displays were not recorded. Each display holds "
    "the chosen item and the items that other users chose nearest in time.",
    "data synth": "Draw a log from a synthetic world. The truth is known and written beside the "
    "log.",
    "train": "Train a user model on a log and write a run folder.\n\nAfter Ctrl-C, SIGTERM or a "
    "crash the run is kept as it was last saved, and --resume continues it: the result is "
    "identical to an uninterrupted run. To train more after a run has ended, use --from."
    "\n\nWith several processes, `torchrun --nproc-per-node K -m fastgaum train …`, each takes its "
    "part of every batch. After every 16 steps they average their weights (--set local_steps=N).",
    "evaluate": "Score a trained model on a split of a log.",
    "predict": "Write the utility and the choice probability of every candidate.",
    "what-if": "Ask a trained model about displays that were never shown: shares after a change, "
    "elasticities, willingness to pay.\n\nEach display changes on its own. The history before it "
    "stays as it was logged.",
    "simulate": "Simulate sessions of a trained user model and write them as a log.\n\nThe first "
    "N episodes are the same, however many you ask for. A trained policy plays with the settings "
    "of its training and does not learn.",
    "serve": "Serve a trained model over HTTP, or as tools of an agent (MCP).\n\nIt scores one "
    "display at a time and remembers each user. It needs `pip install '.[serve]'` in the clone.",
    "fidelity": "Compare simulated users with the log.",
    "report": "Write an HTML report of one or more runs: results, curves, calibration, what was "
    "learned.\n\nThe report is one file and needs no network.",
    "rl": "Train and test policies on simulated users.",
    "rl train": "Train a policy on the users of a run; write policy.safetensors and "
    "curve.parquet.\n\nA training that is stopped writes neither: start it again.",
    "rl evaluate": "Train each policy on the users of a run, once per seed, and print what it "
    "earns from them, or from the users of another run (--in).",
    "ope": "Estimate what a policy would have earned in a log (off-policy evaluation).",
    "compare": "Compare models on your own log: floors, intervals, paired differences.\n\nIt "
    "prints one table of the test split. Without --models it compares fastgaum, logit and "
    "click-rate. If a run fails, the others keep their figures and the exit code is 1.",
    "reproduce": "Print the prec@k table: data sets × models × seeds.\n\nIt uses the data sets on "
    "this machine, or the bundled sample, and never the network. Without --models it compares "
    "fastgaum, paper-lstm and paper-pw. If a run fails, the others keep their figures and the "
    "exit code is 1.",
    "bench": "Measure speeds on this machine, beside other libraries.\n\nExit code 1 if a result "
    "was wrong; with --strict also if a target was missed.",
    "warmup": "Compile all kernels now, as a step of the installation.",
    "doctor": "Print versions and caches and run a self-check, for a bug report.\n\nHome folders "
    "and user names are left out. Exit code 1 if a check fails.",
    "completion": "Print the script that completes commands, options and names in bash, zsh or "
    "fish.",
}
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
for _name, _help in COMMANDS.items():
    if _name in READ_AS_THE_RUN:
        _help += (
            "\n\nThe log is read with the options of the run. If it needs others, convert it first "
            "(`fastgaum data convert`)."
        )
    _group, _, _word = _name.rpartition(" ")
    _foot = epilogue(_name)
    if _name in ("data", "rl"):
        app.command(App(name=_word, help=_help, help_epilogue=_foot))
    else:
        _function = f"{_name}_command".replace(" ", "_")
        _place = f"fastgaum.cli.{_group or _word}:{_function}".replace("-", "_")
        _parent = app[_group] if _group else app
        _parent.command(_place, name=_word, help=_help, help_epilogue=_foot)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing escapes as a traceback."""
    tokens = read_common(sys.argv[1:] if argv is None else argv)
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
