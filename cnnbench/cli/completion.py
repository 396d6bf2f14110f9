"""`completion`: completion of names and options for bash, zsh or fish.

Architectures, tasks and data sets are those that are registered when the script is printed; runs and bundles are looked
up when a word is completed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from cnnbench import tasks
from cnnbench.architectures import architecture
from cnnbench.cli import front, lightning, parser
from cnnbench.datasets import dataset
from cnnbench.training.spelling import SHORT
from cnnbench.types import Exit

Shell = Literal["bash", "zsh", "fish"]

NAMES: dict[str, tuple[str, ...]] = {
    # what a verb is about: architectures, tasks, data sets, runs or bundles; else files
    **dict.fromkeys(("fit", "sweep"), ("architectures", "tasks", "runs")),
    **dict.fromkeys(("validate", "test", "predict", "export", "robustness"), ("runs", "architectures")),
    "explain": ("architectures",),
    "download": ("datasets",),
    **dict.fromkeys(("verify", "bench", "classify"), ("bundles",)),
}
VALUES: dict[str, str] = {
    "--arch": "architectures",
    "--model.arch": "architectures",
    "--compare": "architectures",
    "--dataset": "datasets",
    "--data.dataset": "datasets",
    "--config": "tasks",
    "--checkpoint": "runs",
    "--ckpt_path": "runs",
    "--against": "bundles",
}
"""Flags whose values have names."""
LOOKED_UP = {"runs": "runs/*/seed*", "bundles": "exports/*"}
"""What is completed from the folder one is in."""
PLACES: dict[Shell, str] = {
    "bash": "~/.cnnbench-completion   # sourced by ~/.bashrc",
    "zsh": '"${fpath[1]}/_cnnbench"',
    "fish": "~/.config/fish/completions/cnnbench.fish",
}
"""Where the shell reads a script."""


@dataclass(frozen=True)
class Completed:
    """What is completed after one verb."""

    verb: str
    summary: str
    flags: tuple[str, ...]
    choices: dict[str, tuple[str, ...]]
    """The values of flags, and of the verb itself under "", that are a few words."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What its arguments are."""
        return NAMES.get(self.verb, ())


def completion(shell: Shell) -> int:
    """Print a script that completes verbs, options and names. Source it from the file that your shell reads.

    Args:
        shell: The shell.

    Examples:
        cnnbench completion bash > ~/.cnnbench-completion   # sourced by ~/.bashrc
        cnnbench completion zsh > "${fpath[1]}/_cnnbench"
        cnnbench completion fish > ~/.config/fish/completions/cnnbench.fish
    """
    verbs = [_completed(verb, summary) for verb, summary in front.verbs().items()]
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](verbs), end="")
    if sys.stdout.isatty():  # else the shell reads it, at each start perhaps
        print(f"next: cnnbench completion {shell} > {PLACES[shell]}", file=sys.stderr)
    return Exit.OK


def _completed(verb: str, summary: str) -> Completed:
    function = front.entry(verb)
    if function.__name__ == "main":
        long = {action.option_strings[-1] for action in lightning.parser(verb)._actions if action.option_strings}
        return Completed(verb, summary, tuple(sorted({f"--{short}" for short in SHORT} | long)), {})
    actions = parser.parser_of(verb, function)._actions
    flags = tuple(option for action in actions for option in action.option_strings if option.startswith("--"))
    choices = {
        (action.option_strings or [""])[-1]: tuple(map(str, action.choices)) for action in actions if action.choices
    }
    return Completed(verb, summary, flags, choices)


def _words() -> dict[str, str]:
    """The names that are known, by kind, separated by spaces."""
    names: dict[str, Iterable[str]] = {
        "architectures": architecture.entries,
        "tasks": tasks.names(),
        "datasets": dataset.entries,
    }
    return {kind: " ".join(entries) for kind, entries in names.items()}


def _cases(verbs: list[Completed]) -> Iterator[tuple[str, str]]:
    """A shell pattern of "verb flag", and the words that complete the value of the flag."""
    for flag, kind in VALUES.items():
        yield f'*" {flag}"', f"$({_lister(kind)})"
    for verb in verbs:
        for flag, values in verb.choices.items():
            if flag:
                yield f'"{verb.verb} {flag}"', " ".join(values)


def _lister(kind: str) -> str:
    return f"_cnnbench_names {kind}"


def _listing() -> str:
    """A function of bash and zsh that prints the names of kinds."""
    lines = ["_cnnbench_names() {", "  local kind", '  for kind in "$@"; do', "    case $kind in"]
    lines += [f'      {kind}) echo "{names}" ;;' for kind, names in _words().items()]
    lines += [f"      {kind}) (ls -d {pattern} 2>/dev/null) ;;" for kind, pattern in LOOKED_UP.items()]
    return "\n".join([*lines, "    esac", "  done", "}", ""])


def _bash(verbs: list[Completed]) -> str:
    values = "\n".join(f'    {pattern}) words="{words}" ;;' for pattern, words in _cases(verbs))
    flags = "\n".join(f'        {verb.verb}) words="{" ".join(verb.flags)}" ;;' for verb in verbs)
    names = "\n".join(f'        {verb.verb}) words="{_of_verb(verb)}" ;;' for verb in verbs if _of_verb(verb))
    return f"""# completion of cnnbench in bash
{_listing()}
_cnnbench() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}} words=
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(verb.verb for verb in verbs)} help --help --version" -- "$word"))
    return
  fi
  case "$verb $before" in
{values}
    *)
      case "$word" in
      -*) case "$verb" in
{flags}
        esac ;;
      *) case "$verb" in
{names}
        esac ;;
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [ ${{#COMPREPLY[@]}} -eq 0 ] && COMPREPLY=($(compgen -f -- "$word"))
}}
complete -o filenames -F _cnnbench cnnbench
"""


def _of_verb(verb: Completed) -> str:
    """What completes the arguments of a verb, in bash and zsh."""
    if "" in verb.choices:
        return " ".join(verb.choices.get("", ()))
    return f"$(_cnnbench_names {' '.join(verb.kinds)})" if verb.kinds else ""


def _zsh(verbs: list[Completed]) -> str:
    described = "\n".join(f"    {_quoted(f'{verb.verb}:{verb.summary}')}" for verb in verbs)
    values = "\n".join(f"    {pattern}) names=(${{=:-{words}}}) ;;" for pattern, words in _cases(verbs))
    flags = "\n".join(f"        {verb.verb}) names=({' '.join(verb.flags)}) ;;" for verb in verbs)
    arguments = "\n".join(
        f"        {verb.verb}) names=(${{=:-{_of_verb(verb)}}}) ;;" for verb in verbs if _of_verb(verb)
    )
    return f"""#compdef cnnbench
{_listing()}
_cnnbench() {{
  local -a verbs names
  verbs=(
{described}
  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  case "$words[2] $words[CURRENT-1]" in
{values}
    *)
      case "$words[CURRENT]" in
      -*) case "$words[2]" in
{flags}
        esac ;;
      *) case "$words[2]" in
{arguments}
        esac ;;
      esac ;;
  esac
  (( $#names )) && compadd -- $names
  (( $#names )) || _files
}}
if [ "$funcstack[1]" = _cnnbench ]; then _cnnbench "$@"; else compdef _cnnbench cnnbench; fi
"""


def _fish(verbs: list[Completed]) -> str:
    lines = ["# completion of cnnbench in fish", "complete -c cnnbench -f -n __fish_use_subcommand -l version"]
    for verb in verbs:
        lines.append(f"complete -c cnnbench -f -n __fish_use_subcommand -a {verb.verb} -d {_quoted(verb.summary)}")
        seen = f"-n '__fish_seen_subcommand_from {verb.verb}'"
        for flag in verb.flags:
            words = " ".join(verb.choices.get(flag, ())) or (_fish_names(VALUES[flag]) if flag in VALUES else "")
            lines.append(f"complete -c cnnbench {seen} -l {flag[2:]}" + (f' -x -a "{words}"' if words else ""))
        names = [*verb.choices.get("", ()), *map(_fish_names, verb.kinds)]
        if names:
            lines.append(f'complete -c cnnbench {seen} -a "{" ".join(names)}"')
    return "\n".join(lines) + "\n"


def _fish_names(kind: str) -> str:
    return f"(ls -d {LOOKED_UP[kind]} 2>/dev/null)" if kind in LOOKED_UP else _words()[kind]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "") + "'"
