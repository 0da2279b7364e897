"""What the installed command says of itself and of the machine."""

import importlib
import inspect
import json
import re
import subprocess
import sys

import jax
import pytest

from nncompress_jax import recipes
from nncompress_jax.commands import nncompress as installed


def test_it_helps(nncompress):
    code, out, _ = nncompress("")
    assert code == 0
    assert all(f"  {verb} " in out for verb in installed.VERBS)
    code, out, _ = nncompress("inspect --help")
    assert code == 0
    assert "usage: nncompress inspect" in out
    code, out, _ = nncompress("compress --help")
    assert code == 0
    words = set(re.findall(r"\w+", out))
    assert recipes.STEPS.keys() <= words


@pytest.mark.parametrize("verb", installed.VERBS)
def test_examples_have_lines_of_their_own_and_texts_are_paragraphs(nncompress, monkeypatch, verb):
    """As wide as the terminal, whatever the source's lines are."""
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = nncompress(f"{verb} --help")
    assert code == 0
    module = importlib.import_module(f"nncompress_jax.commands.{verb}")
    examples = re.findall(r"^(?:nncompress|python) .*$", module.__doc__, re.MULTILINE)
    assert examples
    assert re.findall(r"^\$ (\w.*?) *$", out, re.MULTILINE) == examples
    for field in re.findall(r'"""(.*?)"""', inspect.getsource(module.Options), re.DOTALL)[1:]:
        assert len(field) > 300 or " ".join(field.split()) in out


def test_who_reads_may_stop(tmp_path):
    """As `nncompress compress --help | head -1` does."""
    program = "import sys; from nncompress_jax.commands.nncompress import main; sys.argv[1:] = ['doctor']; main()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_doctor(nncompress, tiny_data):
    code, out, _ = nncompress(f"doctor --data_dir={tiny_data}")
    assert code == 0
    assert re.search(rf"^jax +{re.escape(jax.__version__)}$", out, re.MULTILINE)
    assert re.search(r"^devices +cpu:0", out, re.MULTILINE)
    assert re.search(rf"^data sets .*tiny.* in {re.escape(str(tiny_data))}", out, re.MULTILINE)


def test_the_doctor_for_programs(nncompress):
    _, words, _ = nncompress("doctor")
    code, out, err = nncompress("doctor --json")
    assert (code, json.loads(out)["jax"]) == (0, jax.__version__)
    assert err.splitlines()[:3] == words.splitlines()[:3]  # other tests fill the caches meanwhile


@pytest.mark.parametrize(("typed", "expected"), [("ins", ["inspect"]), ("compress --au", ["--auto"]), ("export x", [])])
def test_the_shell_completes(nncompress, tmp_path, typed, expected):
    code, script, _ = nncompress("completion bash")
    assert code == 0
    (tmp_path / "completion").write_text(script)
    words = ["nncompress", *typed.split()]
    program = f"source completion; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _nncompress"
    program += "; printf '%s\\n' ${COMPREPLY[@]}"
    shown = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (shown.stdout.split(), shown.stderr) == (expected, "")
    assert nncompress("completion zsh")[1].endswith(script)
