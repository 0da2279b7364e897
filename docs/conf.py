"""The documentation as a site: `make docs`. Pages are Markdown; the reference is made of docstrings and help texts."""

import importlib
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import nncompress_jax
from nncompress_jax.commands import cli

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # experiments/, whose help is shown

project = "nncompress_jax"
version = release = nncompress_jax.__version__
copyright = "the authors of nncompress_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "benchmarks/*.md", "launch/*.md", "results/*.md"]
exclude_patterns = ["**/.*"]

myst_heading_anchors = 4
default_role = "literal"
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "nncompress_jax"
html_static_path, html_css_files = ["static"], ["site.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "github-dark"


class Help(Directive):
    """The help text of a command: `nncompress VERB`, or a script of experiments/."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A block as the terminal shows it."""
        text = shown(self.arguments[0])
        return [nodes.literal_block(text, text, language="text")]


def shown(command: str) -> str:
    """Its help, 80 columns wide."""
    name = command.split()[-1]
    module = f"experiments.{Path(name).stem}" if name.endswith(".py") else f"nncompress_jax.commands.{name}"
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    return cli.help_text(importlib.import_module(module), command)


def escaped(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Makes stars and bars in docstrings, as in (variables, *inputs) and |x|, what they are in plain text."""
    for n, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")  # every other one is code
            parts[::2] = [re.sub(r"\*(?=\w)|\|", r"\\\g<0>", part) for part in parts[::2]]
            lines[n] = "`".join(parts)


def setup(app: Sphinx) -> None:
    """Adds the directive, and the change of docstrings before they are read."""
    app.add_directive("help", Help)
    app.connect("autodoc-process-docstring", escaped, priority=100)
