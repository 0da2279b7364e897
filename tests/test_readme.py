"""What the README and the pages of docs/ show works as it stands there, and their links lead somewhere."""

import importlib
import importlib.metadata
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import tyro

import nncompress_jax as nnc
from nncompress_jax.commands.nncompress import VERBS as EVERY_VERB

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[!.]*/README.md")])
}
SHOWN = {name: text for name, text in PAGES.items() if name == "README.md" or name.startswith("docs/")}
BLOCKS = {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in SHOWN.items()}
TUTORIALS = [name for name in SHOWN if "tutorials" in name]
PROGRAMS = [
    pytest.param(program, id=f"{name}-{number}")
    for name, programs in BLOCKS.items()
    for number, program in enumerate(programs if name not in (*TUTORIALS, "README.md") else ())
]
"""That of the README is the notebook's."""
ALL = "\n".join(SHOWN.values())
VERBS = sorted(set(re.findall(r"^nncompress (\w+)(.*?)(?:#.*)?$", ALL, re.MULTILINE)))
COMMANDS = sorted(set(re.findall(r"^python (experiments/\S+\.py)(.*?)(?:#.*)?$", ALL, re.MULTILINE)))


def test_they_show_something():
    assert len(PROGRAMS) >= 15
    assert len(COMMANDS) >= 5


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 900


def anchors(text):
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked():
    """From another page, or from the menu of the site."""
    linked = {Path(link).name for text in PAGES.values() for link in re.findall(r"\]\(([^)#\s]+)", text)}
    linked |= {
        f"{Path(entry).name}.md"
        for entry in re.findall(r"^(?:.* <)?([\w/.]+)>?$", PAGES["docs/index.md"], re.MULTILINE)
    }
    assert {Path(name).name for name in SHOWN} <= linked | {"README.md"}


def printed(program):
    """What a program says that it prints."""
    return re.findall(r"print\(.*\)  # (.*)", program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(program, capsys):
    exec(program, {"__name__": "readme"})
    out = capsys.readouterr().out
    assert [line for line in printed(program) if line not in out] == []


@pytest.mark.parametrize("page", TUTORIALS)
def test_tutorials(page, capsys, tmp_path, monkeypatch):
    """Their blocks are one program. A block that needs a package which is not there is left out, and says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "docs/tutorials")
    names, run = {"__name__": "tutorial"}, []
    for block in BLOCKS[page]:
        needed = re.match(r"# needs ([\w-]+)", block)
        if not needed or is_installed(needed[1]):
            exec(block, names)
            run.append(block)
    out = capsys.readouterr().out
    assert run
    assert [line for block in run for line in printed(block) if line not in out] == []


def is_installed(package):
    return any(package in packages for packages in importlib.metadata.packages_distributions().values())


def test_the_reference_has_every_public_name():
    shown = set(re.findall(r"auto\w+:: (?:nncompress_jax[\w.]*\.)?(\w+)", PAGES["docs/reference.md"]))
    assert set(nnc.__all__) - shown == {"__version__"}


def test_every_command_shows_its_help():
    shown = set(re.findall(r"{help} (.*)", PAGES["docs/commands.md"]))
    own = [path.name for path in ROOT.glob("experiments/*.py") if "class Options" in path.read_text()]  # no verbs
    scripts = {f"python experiments/{name}" for name in own}
    assert shown == {f"nncompress {verb}" for verb in EVERY_VERB} | scripts


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_commands_have_these_flags(script, flags, monkeypatch):
    """Training itself takes minutes: the commands' tests do it on little data."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "readme", module)  # where tyro finds the source, and the help in it
    spec.loader.exec_module(module)
    tyro.cli(module.Options, args=shlex.split(flags), use_underscores=True)


@pytest.mark.parametrize(("verb", "flags"), VERBS)
def test_verbs_have_these_flags(verb, flags):
    module = importlib.import_module(f"nncompress_jax.commands.{verb}")
    tyro.cli(module.Options, args=shlex.split(flags), use_underscores=True)


def test_make_targets():
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = re.findall(r"(?:^    |`)make ([\w-]+)", ALL, re.MULTILINE)
    assert set(shown) == {"demo", "test", "test-all", "docs", "verify", "torch"}
    assert set(shown) <= {name for line in targets for name in line.split()}


def test_the_notebook(tmp_path, monkeypatch, capsys):
    """Its cells run, and print what stands below them, but for what is measured; they begin with the README's program,
    which prints what stands there."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs/tutorials/quick_start.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = {"__name__": "notebook"}
    measured = re.compile(r"[\d.]+% correct|[\d,]+ images/s| +$", re.MULTILINE)
    for cell in cells:
        exec("".join(cell["source"]), names)
        shown = "".join(line for output in cell["outputs"] for line in output["text"])
        assert measured.sub("", capsys.readouterr().out) == measured.sub("", shown)
    (program,) = BLOCKS["README.md"]
    sources = ["".join(cell["source"]) for cell in cells[:4]]
    assert code("\n".join(sources)) == code(program)
    printed = cells[3]["outputs"][0]["text"]
    sizes = re.findall(r"^    (\w+: [\d,]+ bytes)", PAGES["README.md"], re.MULTILINE)
    assert re.findall(r"^\w+: [\d,]+ bytes", "".join(printed), re.MULTILINE) == sizes


def code(program):
    """Without comments and empty lines."""
    return [line for line in program.splitlines() if line.strip() and not line.lstrip().startswith("#")]
