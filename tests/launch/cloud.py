"""A folder that stands for the cloud, and launch/tpu.sh run against it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "it's a run"
WORKDIR = f"gs://a bucket/runs/{NAME}"
QUEUED = ("compute", "tpus", "queued-resources")
DELETE = (
    "to delete it: gcloud compute tpus queued-resources delete 'it'\\''s a run' '--project=a project' "
    "--zone=us-west4-a --force --quiet\n"
)
COSTS = f"{NAME} is ACTIVE: the slice is still there, and costs; {DELETE}"

# What a worker calls, and has: its name, and a Python that makes environments whose Python is the fake training.
WORKER_HOSTNAME = """#!/bin/bash
echo "t1v-n-1a2b3c4d-w-$WORKER"
"""
WORKER_PYTHON = """#!/bin/bash
echo "$*" >>"$HOME/python3.log"
if [[ "$1 $2 $3" == "-m uv venv" ]]; then
  mkdir -p "${!#}/bin"
  ln -s "$FAKE_TRAINING" "${!#}/bin/python"
fi
"""


def executable(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def make_project(folder):
    """A repository with launch/ and what its scripts touch."""
    shutil.copytree(ROOT / "launch", folder / "launch")
    for file in ("pyproject.toml", "requirements.lock", "experiments/train.py"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(f"# {file}\n")
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "launch"]):
        subprocess.run(["git", *who, *words], cwd=folder, check=True)
    return folder


def until(condition, *, seconds=30):
    """Waits for it."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it did not come"
        time.sleep(0.02)


class Cloud:
    """The folder; see fake_gcloud.py.

    Args:
      folder: an empty one.
      project: of `make_project`.
    """

    def __init__(self, folder, project):
        self.folder, self.project = folder, project
        self.type, self.training = "v5litepod-8", executable(folder / "training", "#!/bin/bash\n")
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("TPU_", "SUPERVISE_", "XDG_"))},
            **{"HOME": str(folder / "user"), "FAKE_CLOUD": str(folder), "FAKE_TRAINING": str(self.training)},
            **{"PATH": f"{folder}/bin:{os.environ['PATH']}", "TPU_POLL_S": "0", "TPU_RETRY_S": "0", "TPU_SSH_S": "20"},
            **{"SUPERVISE_FIRST_PAUSE_S": "0", "SUPERVISE_TPU_LOCK": str(folder / "libtpu_lockfile")},
        }
        fake = f'#!/bin/bash\nexec "{sys.executable}" -S -E "{Path(__file__).parent}/fake_gcloud.py" "$@"\n'
        executable(folder / "bin/gcloud", fake)
        executable(folder / "worker_bin/hostname", WORKER_HOSTNAME)
        executable(folder / "worker_bin/python3", WORKER_PYTHON)
        prepared = folder / "gs/a bucket/tensorflow_datasets/cifar10/3.0.2"
        prepared.mkdir(parents=True)
        (prepared / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
        self.answer(
            name=NAME,
            projects=["a project"],
            zones=["us-west4-a"],
            types=["v2-8", "v5litepod-8", "v5litepod-16"],
            quotas=[["TPUV5sLitepodPerProjectPerZoneForTPUAPI", "32", "us-west1-c;us-west4-a"]],
        )

    def answer(self, **answers):
        """Changes what projects, zones and quotas answer."""
        file = self.folder / "answers.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(before | answers))

    def write(self, **files):
        """Writes the state's files."""
        for name, text in files.items():
            (self.folder / name).write_text(str(text))

    def start(self, hosts=1, states="ACTIVE"):
        """Makes a slice that is there."""
        self.type = f"v4-{8 * hosts}"
        self.write(hosts=hosts, states=states)
        for host in range(hosts):
            self.home(host).mkdir(parents=True)

    def home(self, worker=0):
        return self.folder / "homes" / str(worker)

    def train(self, text):
        """What the training does, in the shell."""
        executable(self.training, f"#!/bin/bash\n{text}\n")

    def line(self, verb, *options):
        given = [f"--name={NAME}", "--project=a project", "--zone=us-west4-a", f"--accelerator-type={self.type}"]
        return ["bash", str(self.project / "launch/tpu.sh"), verb, *given, "--bucket=gs://a bucket", *options]

    def tpu(self, verb, *options, **environment):
        """Runs tpu.sh; gives its exit code and what it printed on either stream."""
        done = subprocess.run(
            self.line(verb, *options),
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def calls(self, *words):
        """The calls of gcloud that begin so."""
        file = self.folder / "calls.jsonl"
        made = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [call for call in made if call[: len(words)] == list(words)]

    def end(self):
        """Ends what still runs."""
        for name in ("hanging", "offline", "refused", "delete_failures"):
            (self.folder / name).unlink(missing_ok=True)
        delete = [f"{self.folder}/bin/gcloud", "compute", "tpus", "queued-resources", "delete", NAME]
        subprocess.run(delete, env=self.environment, stderr=subprocess.DEVNULL)
