"""``hiar completion``: prints what makes a shell complete the words of ``hiar``, made from its parser."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from hiar_client.cli.exits import DONE
from hiar_client.cli.options import Commands, add_command

SHELLS = ("bash", "zsh", "fish")
_FILES = frozenset({"FILE"})
_BASH_FILES = 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current"))'
_EXAMPLES = """\
  source <(hiar completion bash)                                   # for this shell; or, to keep it:
  mkdir -p ~/.local/share/bash-completion/completions
  hiar completion bash > ~/.local/share/bash-completion/completions/hiar

zsh: source <(hiar completion zsh), behind compinit. fish: hiar completion fish | source
"""


@dataclass(frozen=True)
class Level:
    """What can be typed behind some commands."""

    path: str
    """The commands, such as ``videos get``; empty at the start."""
    commands: dict[str, str]
    """Name to help."""
    flags: dict[str, argparse.Action]
    """By each way to write it."""


def add(commands: Commands, whole: argparse.ArgumentParser) -> None:
    """Add the command. ``whole``: the parser that is to be completed."""
    parser = add_command(commands, "completion", "print what makes a shell complete this command", _EXAMPLES)
    parser.add_argument("shell", choices=SHELLS, help="which one")
    parser.set_defaults(run_alone=lambda options: _print(options.shell, whole))


def script_of(shell: str, whole: argparse.ArgumentParser) -> str:
    """What the shell is to source."""
    levels = list(_levels(whole, ""))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](levels)


def _print(shell: str, whole: argparse.ArgumentParser) -> int:
    print(script_of(shell, whole), end="")
    return DONE


def _levels(parser: argparse.ArgumentParser, path: str) -> Iterator[Level]:
    flags = {word: action for action in parser._actions for word in action.option_strings}
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    words = {choice.dest: choice.help or "" for group in groups for choice in group._choices_actions}
    choices = {
        str(word): "" for action in parser._actions if not action.option_strings for word in action.choices or ()
    }
    yield Level(path, {**choices, **words}, flags)
    for group in groups:
        for name, inner in group.choices.items():
            yield from _levels(inner, f"{path} {name}".strip())


def _bash(levels: list[Level]) -> str:
    return f"""\
_hiar() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} path="" words="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        case "$path/$word" in
{_paths(levels)}
        esac
    done
    case "$path $previous" in
{_values(levels, 'COMPREPLY=($(compgen -W "{}" -- "$current"))', _BASH_FILES)}
    esac
    case "$path" in
{_words(levels)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _hiar hiar
"""


def _zsh(levels: list[Level]) -> str:
    return f"""\
_hiar() {{
    local previous=${{words[CURRENT - 1]}} place="" word all=""
    for word in ${{words[2,CURRENT - 1]}}; do
        case "$place/$word" in
{_paths(levels).replace("path=", "place=")}
        esac
    done
    case "$place $previous" in
{_values(levels, "compadd -- {}", "_files")}
    esac
    case "$place" in
{_words(levels).replace("words=", "all=")}
    esac
    compadd -- ${{=all}}
}}
compdef _hiar hiar
"""


def _paths(levels: list[Level]) -> str:
    """Lines of a case: which level a command leads to."""
    inner = [level.path for level in levels if level.path]
    return "\n".join(
        f'            "{path.rpartition(" ")[0]}/{path.rpartition(" ")[2]}") path="{path}" ;;' for path in inner
    )


def _values(levels: list[Level], of_choices: str, of_files: str) -> str:
    """Lines of a case: what may stand behind a flag. A flag that takes anything completes to nothing."""
    lines = []
    for level in levels:
        for word, action in level.flags.items():
            if action.nargs == 0:
                continue
            choices = " ".join(str(choice) for choice in action.choices or ())
            does = of_choices.format(choices) if choices else of_files if action.metavar in _FILES else ":"
            lines.append(f'        "{level.path} {word}") {does}; return ;;')
    return "\n".join(lines)


def _words(levels: list[Level]) -> str:
    """Lines of a case: what can be typed at a level."""
    return "\n".join(
        f'        "{level.path}") words="{" ".join([*level.commands, *level.flags])}" ;;' for level in levels
    )


def _fish(levels: list[Level]) -> str:
    lines = [
        "function __hiar_at",
        "    set -l words (commandline -opc)[2..]",
        "    set -l path",
        "    for word in $words",
        "        contains -- (string join ' ' $path $word) $argv[2..]; and set -a path $word",
        "    end",
        '    test "$path" = "$argv[1]"',
        "end",
        "complete -c hiar -f",
    ]
    known = " ".join(f"'{level.path}'" for level in levels if level.path)
    for level in levels:
        here = f"complete -c hiar -n \"__hiar_at '{level.path}' {known}\""
        lines += [f"{here} -a {name} -d {_quoted(text)}" for name, text in level.commands.items()]
        lines += [f"{here} {_fish_flag(action)}" for action in dict.fromkeys(level.flags.values())]
    return "\n".join([*lines, ""])


def _fish_flag(action: argparse.Action) -> str:
    names = " ".join(f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in action.option_strings)
    choices = " ".join(str(choice) for choice in action.choices or ())
    takes = (
        ""
        if action.nargs == 0
        else f" -x -a '{choices}'"
        if choices
        else " -r -F"
        if action.metavar in _FILES
        else " -x"
    )
    return f"{names}{takes} -d {_quoted(action.help or '')}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
