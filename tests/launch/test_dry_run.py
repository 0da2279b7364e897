"""The commands of launch/tpu.sh, word by word. UPDATE_GOLDEN=1 writes the files anew; then read what changed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.launch.cloud import ROOT

pytestmark = pytest.mark.system

GOLDEN = Path(__file__).parent / "golden"
VERBS = ("create", "setup", "run", "watch", "logs", "delete")
PLAIN = ["--project=my-project", "--zone=us-west4-a", "--bucket=gs://my-bucket"]
CASES = {
    "v5litepod-8": ["--name=vgg", "--accelerator-type=v5litepod-8", *PLAIN],
    "v5litepod-8-spot": ["--name=vgg", "--accelerator-type=v5litepod-8", "--spot", *PLAIN],
    "v5litepod-16-spot": ["--name=vgg", "--accelerator-type=v5litepod-16", "--spot", *PLAIN],
    "v6e-8": ["--name=vgg", "--accelerator-type=v6e-8", *PLAIN, "--", "--model=vgg16", "--dataset=digits"],
    "v4-32-spot": ["--name=vgg", "--accelerator-type=v4-32", "--spot", "--data-dir=/mnt/data", *PLAIN],
    "quotes": [
        *["--name=it's a run", "--project=my project", "--zone=us-west4-a", "--accelerator-type=v3-8"],
        *["--bucket=gs://b/a folder", "--runtime-version=of my own", '--setup-command=echo "it\'s" $HOME'],
        *["--follow", "--worker=0", "--", "--recipe=prune:0.9+cluster:4", '--init=gs://b/it\'s "one" of $HOME'],
    ],
}


def dry_run(verb, options, **environment):
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("TPU_", "XDG_"))}
    done = subprocess.run(
        ["bash", ROOT / "launch/tpu.sh", verb, "--dry-run", *options],
        env=plain | {"HOME": "/home/me"} | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_it_shows_each_command(case):
    shown = "\n".join(f"### {verb}\n{dry_run(verb, CASES[case])}" for verb in VERBS)
    shown = shown.replace(f"git -C {ROOT} ", "git -C /home/me/nncompress_jax ")
    file = GOLDEN / f"{case}.txt"
    if "UPDATE_GOLDEN" in os.environ:
        file.write_text(shown)
    assert shown == file.read_text()


def test_the_commands_of_the_readme():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "launch/README.md").read_text(), re.DOTALL)
    blocks = [block for block in blocks if "launch/tpu.sh" in block]
    script = re.sub(r"launch/tpu.sh \w+", r"\g<0> --dry-run", "".join(blocks))
    done = subprocess.run(["bash", "-ec", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("queued-resources create vgg ") == 3
    assert "--data_dir=/mnt/datasets --model=vgg16ds --dataset=imagenet2012 --stream=True" in done.stdout


def test_what_it_shows_can_be_pasted(cloud):
    """The same calls, whether tpu.sh makes them or a shell that its lines are pasted into."""
    cloud.start(hosts=2)
    flags = ["--", "--recipe=prune:0.9+cluster:4", '--init=gs://b/it\'s "one" of $HOME', "a\nb"]
    made = []
    for pasted in (False, True):
        for verb in ("setup", "run", "logs", "delete"):
            if pasted:
                line = cloud.tpu(verb, "--dry-run", *flags)[1]
                subprocess.run(["bash", "-ec", line], env=cloud.environment, check=True, capture_output=True)
            else:
                assert cloud.tpu(verb, *flags)[0] == 0
        # In the end tpu.sh asks, too, what is left.
        made.append([call for call in cloud.calls("compute") if "describe" not in call])
        (cloud.folder / "calls.jsonl").unlink()
        cloud.start(hosts=2) if not pasted else None
    assert made[0] == made[1]
    assert len(made[0]) == 5
