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
from fastgaum.errors import FastgaumError, LostPeerError, too_long
from fastgaum.interrupts import Interrupted, stop_on_signals
from fastgaum.untrusted import shown

DONE, CHECK_FAILED, USER_MISTAKE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_LONGEST_SURPRISE = 200
"""of an unexpected error: torch's messages may hold a C++ stack"""

# the help is here and not in the commands' docstrings: the first page would import all of them
COMMANDS = {
    "data": "Logs: list, info, get, audit, convert, build, synth.",
    "data list": "List the logs that have a name, and whether they are at hand.",
    "data info": "Say what a log is: origin, terms, counts, checksums, and its card.",
    "data get": "Download a log, or adopt a local copy; either way its sha256 must be the "
    "registry's.",
    "data audit": "Try simple label-free rules on a log, and name each that finds the clicked item "
    "more often than chance; print the floors that a model has to beat.\n\n"
    "Traps in a log are a finding, not a failure: the exit code is 0.",
    "data convert": "Read a log, check it, and write it: as a file in the long layout, or packed "
    "into a folder that loads at once.",
    "data build": "Make a log of choices whose display sets were never recorded: a display is made "
    "up of the chosen item and those that other users chose nearest in time.",
    "data synth": "Draw a log of a world whose reward and choice rule are known, and write the "
    "truth beside it.",
    "train": "Train a user model on a log and leave a run folder.\n\n"
    "Ctrl-C, SIGTERM and crashes leave the run as it was saved after an epoch; --resume goes on "
    "from there to the same bytes. More epochs of a run that has ended: --from.\n\n"
    "Several processes: `torchrun --nproc-per-node K -m fastgaum train …`, each on its part of "
    "every batch; after every 16 steps they take the mean of their weights "
    "(--set local_steps=N).",
    "tune": "Search settings for a log; a configuration that `train --config` reads.\n\n"
    "The default is tried first, and the trial of the least validation loss is written. The test "
    "split is not read. Trials are kept beside the output: a command that was stopped goes on when "
    "it is given again.",
    "evaluate": "Score a trained model on a split of a log.",
    "predict": "Write utilities and choice probabilities of every candidate.",
    "what-if": "Ask a trained model about displays that were never shown: shares after a change, "
    "elasticities, willingness to pay.\n\n"
    "Each display changes by itself, behind the history that was logged.",
    "simulate": "Write episodes of a trained user model, as a log to read back.\n\n"
    "An episode is the same whatever the number of them. A policy that was trained plays what it "
    "was trained with, and learns no more.",
    "serve": "Users of a trained model as a service: over HTTP, or as tools of an agent (MCP).\n\n"
    "Displays are scored one at a time, and each user remembers. It needs `pip install "
    "'fastgaum[serve]'`.",
    "fidelity": "Does a trained user model behave as a log: replay and compare.",
    "report": "A page on runs: results, curves, calibration, what was learned.\n\n"
    "One HTML file that asks the network for nothing.",
    "rl": "Policies in a learned user: train, evaluate, adapt.",
    "rl train": "Train a policy in a run's world and leave policy.safetensors and curve.parquet."
    "\n\nA training that is cut off leaves neither: the same command begins anew.",
    "rl evaluate": "Train each policy in a run's world, seed by seed, and print what they earn "
    "there, or in another run's world (--in).",
    "rl adapt": "Let a policy trained in RUN's world learn from new users, beside an untrained "
    "one: the adaptation curve.\n\n"
    "Both meet what the policy was trained with: its reward, horizon, leaving and pool, less what "
    "the other world (--in) does not know of it. They learn from what a site can see: choices, and "
    "what the users of RUN's world who follow them think of these.",
    "ope": "What a policy would have earned in a log: off-policy values.",
    "compare": "Models on your own log, read as it is: floors, intervals, paired differences.\n\n"
    "One table of the test split, of fastgaum, logit and click-rate if no --models are given. Exit "
    "code 1 if a run failed: the others' figures are kept.",
    "reproduce": "Data sets × models × seeds: the prec@k table.\n\n"
    "It runs on the data sets at hand, or on the bundled sample, and never needs the network; "
    "fastgaum, paper-lstm and paper-pw if no --models are given. Exit code 1 if a run failed: the "
    "others' figures are kept.",
    "bench": "Races against rivals on this machine: speeds, ratios, shares of its ceilings.\n\n"
    "Exit code 1 if a contender's result was wrong; with --strict also if a bar was missed.",
    "bench transfer": "Promised and paid, round by round: deploy, log, refit, retrain and judge "
    "among users who are known, beside random slates of as many events.",
    "warmup": "Compile the kernels of fits, worlds and online users now, as an install step.",
    "doctor": "Versions, caches and a self-check, to paste into a bug report.\n\nHome folders and "
    "user names are left out. Exit code 1 if a check fails.",
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
    help="Learn a user from recommender logs: history encoder, generator and reward model, "
    "trained against each other.",
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
            "\n\nThe log is read as the run's was; one that needs other options: `data convert`."
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
