"""Prints what makes the tab key complete verbs and options in a shell; names of files are completed as ever.

nncompress completion bash >> ~/.bashrc
nncompress completion zsh >> ~/.zshrc
"""

import dataclasses
import importlib
import re
from typing import Literal

import tyro

from nncompress_jax.commands import cli
from nncompress_jax.commands.nncompress import VERBS

SCRIPT = """\
_nncompress() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words=
  if ((COMP_CWORD == 1)); then
    words="{verbs}"
  else
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _nncompress nncompress
"""

FIRST = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"}
"""What zsh needs to read such a script."""


@dataclasses.dataclass(frozen=True)
class Options:
    """For which shell."""

    shell: tyro.conf.Positional[Literal["bash", "zsh"]] = "bash"
    """Whose start-up file it goes into."""


def main(options: Options) -> None:
    """Reads the help of every verb for its options."""
    cases = []
    for verb in VERBS:
        module = importlib.import_module(f"nncompress_jax.commands.{verb}")
        flags = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z]\w*", cli.help_text(module, f"nncompress {verb}")))
        cases.append(f'      {verb}) words="{" ".join(flags)}" ;;')
    print(FIRST[options.shell] + SCRIPT.format(verbs=" ".join(VERBS), cases="\n".join(cases)), end="")
