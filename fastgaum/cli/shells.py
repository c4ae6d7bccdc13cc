"""The completion scripts: one table of what may stand where, and for each shell the same walk over
the words typed so far.

A table's line is a kind and words. The walk keeps where it is in the tree of commands, the option
whose value comes next, and the number of the next argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

WORDS, FILES, LIST, COMMANDS = "w", "f", "c", "s"
"""one of the words · a file's name or one of the words · some of the words, by comma · a further
command"""


@dataclass(frozen=True)
class Place:
    """What may stand at a place of a command line."""

    kind: str = WORDS
    words: tuple[str, ...] = ()


Places = Mapping[str, Place]

_BASH = r"""# completion of fastgaum in bash, written by `fastgaum completion bash`
_fastgaum_at() {
  case "$1" in
TABLE
  esac
}

_fastgaum() {
  local cur="${COMP_WORDS[COMP_CWORD]}" at=fastgaum option="" position=1 prefix="" i word found
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    if [[ "$word" == "=" ]]; then
      # bash cuts words at "=": an option's value follows, or else the rest of a value
      if [[ -z "$option" ]]; then ((i++)); fi
      if ((i == COMP_CWORD)); then return; fi
    elif [[ -n "$option" ]]; then
      option=""
    elif [[ "$word" == -* ]]; then
      if [[ -n "$(_fastgaum_at "$at $word")" ]]; then option="$word"; fi
    else
      found="$(_fastgaum_at "$at $position")"
      if [[ "$found" == "s "* && "$found " == *" $word "* ]]; then at="$at $word"
      else ((position++)); fi
    fi
  done
  if [[ "$cur" == "=" ]]; then
    if [[ -z "$option" ]]; then return; fi
    cur=""
  fi
  if [[ -n "$option" ]]; then
    found="$(_fastgaum_at "$at $option")"
  elif [[ "$cur" == -* ]]; then
    found="$(_fastgaum_at "$at -")"
  else
    found="$(_fastgaum_at "$at $position")"
    if [[ -z "$found" ]]; then found="$(_fastgaum_at "$at +")"; fi
  fi
  if [[ "$found" == "c "* && "$cur" == *,* ]]; then
    prefix="${cur%,*},"
    cur="${cur##*,}"
  fi
  local IFS=$' \t\n'
  COMPREPLY=($(compgen -P "$prefix" -W "${found#* }" -- "$cur"))
  if [[ "$found" == "f "* ]]; then
    compopt -o filenames 2>/dev/null
    IFS=$'\n'
    COMPREPLY+=($(compgen -f -- "$cur"))
  elif [[ "${COMPREPLY[0]-}" == *= ]]; then
    compopt -o nospace 2>/dev/null
  fi
}

complete -F _fastgaum fastgaum"""

_ZSH = r"""#compdef fastgaum
# completion of fastgaum in zsh, written by `fastgaum completion zsh`
_fastgaum_at() {
  case "$1" in
TABLE
  esac
}

_fastgaum() {
  local cur="$words[CURRENT]" at=fastgaum option="" word found
  local -a entries keys
  integer position=1 i
  for ((i = 2; i < CURRENT; i++)); do
    word="$words[i]"
    if [[ -n "$option" ]]; then
      option=""
    elif [[ "$word" == --*=* ]]; then
      continue
    elif [[ "$word" == -* ]]; then
      if [[ -n "$(_fastgaum_at "$at $word")" ]]; then option="$word"; fi
    else
      found="$(_fastgaum_at "$at $position")"
      if [[ "$found" == "s "* && "$found " == *" $word "* ]]; then at="$at $word"
      else ((position++)); fi
    fi
  done
  if [[ -z "$option" && "$cur" == --*=* ]]; then
    option="${cur%%=*}"
    compset -P '*='
  fi
  if [[ -n "$option" ]]; then
    found="$(_fastgaum_at "$at $option")"
  elif [[ "$cur" == -* ]]; then
    found="$(_fastgaum_at "$at -")"
  else
    found="$(_fastgaum_at "$at $position")"
    if [[ -z "$found" ]]; then found="$(_fastgaum_at "$at +")"; fi
  fi
  if [[ "$found" == "c "* ]]; then compset -P '*,'; fi
  entries=(${=found#* })
  keys=(${(M)entries:#*=})
  entries=(${entries:#*=})
  compadd -S '' -a keys
  compadd -a entries
  if [[ "$found" == "f "* ]]; then _files; fi
}

# autoloaded from $fpath, or sourced
if [[ "$funcstack[1]" == _fastgaum ]]; then _fastgaum "$@"; else compdef _fastgaum fastgaum; fi"""

_FISH = r"""# completion of fastgaum in fish, written by `fastgaum completion fish`
function __fastgaum_at
    switch "$argv[1]"
TABLE
    end
end

function __fastgaum_complete
    set -l typed (commandline -opc)
    set -l cur (commandline -ct)
    set -l at fastgaum
    set -l option ''
    set -l prefix ''
    set -l position 1
    for word in $typed[2..-1]
        if test -n "$option"
            set option ''
        else if string match -q -- '--*=*' $word
            continue
        else if string match -q -- '-*' $word
            if __fastgaum_at "$at $word" | string length -q
                set option $word
            end
        else
            set -l found (__fastgaum_at "$at $position" | string split ' ')
            if test "$found[1]" = s; and contains -- $word $found[2..-1]
                set at "$at $word"
            else
                set position (math $position + 1)
            end
        end
    end
    if test -z "$option"; and string match -q -- '--*=*' $cur
        set option (string split -m 1 = -- $cur)[1]
        set prefix "$option="
        set cur (string split -m 1 = -- $cur)[2]
    end
    set -l place "$at $position"
    if test -n "$option"
        set place "$at $option"
    else if string match -q -- '-*' $cur
        set place "$at -"
    else if not __fastgaum_at $place | string length -q
        set place "$at +"
    end
    set -l found (__fastgaum_at $place | string split ' ')
    if test "$found[1]" = c
        set prefix $prefix(string replace -r '[^,]*$' '' -- $cur)
    end
    for word in $found[2..-1]
        test -n "$word"; and echo "$prefix$word"
    end
    if test "$found[1]" = f
        for path in (__fish_complete_path $cur)
            echo "$prefix$path"
        end
    end
end

complete -c fastgaum -f -a '(__fastgaum_complete)'"""


def _sh(places: Places) -> str:
    """The table as lines of a `case`; nothing in it is special to a shell within single quotes."""
    return "\n".join(
        f"    '{at}') echo '{' '.join([place.kind, *place.words])} ' ;;"
        for at, place in places.items()
    )


def _fish(places: Places) -> str:
    lines = (
        (f"        case '{at}'", f"            echo '{_line(place)}'")
        for at, place in places.items()
    )
    return "\n".join(line for pair in lines for line in pair)


def _line(place: Place) -> str:
    return " ".join([place.kind, *place.words])


SCRIPTS: dict[str, Callable[[Places], str]] = {
    "bash": lambda places: _BASH.replace("TABLE", _sh(places)),
    "zsh": lambda places: _ZSH.replace("TABLE", _sh(places)),
    "fish": lambda places: _FISH.replace("TABLE", _fish(places)),
}
