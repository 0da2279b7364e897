"""Plays gcloud on a folder: the queued resource is a list of states, workers are home folders, buckets are folders.

$FAKE_CLOUD holds
  calls.jsonl   the argument list of each call
  answers.json  what projects, zones and quotas answer
  states        of the queued resource, one a line; each look takes one away, and the last stays
  next_states   what `states` will be after the next create
  hosts         how many workers a slice has
  ssh_failures  how many of the next ssh calls fail
  delete_failures
                how many of the next deletes fail
  offline       whether there is no network
  refused       whether this user may not do anything
  hanging       the workers that do not answer
  homes/N       of worker N
  gs/BUCKET     what a bucket holds
"""

import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ.get("FAKE_CLOUD", "."))
PLACE = {"project", "zone"}
QUEUED = ("compute", "tpus", "queued-resources")
VM = ("compute", "tpus", "tpu-vm")
FLAGS = {
    ("projects", "describe"): {"format"},
    (*VM, "accelerator-types", "list"): PLACE | {"format"},
    ("beta", "quotas", "info", "list"): {"service", "project", "quiet", "filter", "flatten", "format"},
    ("storage", "ls"): set(),
    ("storage", "cat"): set(),
    ("storage", "rsync"): {"recursive"},
    (*QUEUED, "create"): PLACE | {"node-id", "accelerator-type", "runtime-version", "spot"},
    (*QUEUED, "describe"): PLACE | {"format"},
    (*QUEUED, "delete"): PLACE | {"force", "quiet"},
    (*VM, "scp"): PLACE | {"worker", "quiet", "scp-flag"},
    (*VM, "ssh"): PLACE | {"worker", "quiet", "ssh-flag", "command"},
}


def read(name, default=""):
    file = CLOUD / name
    return file.read_text() if file.exists() else default


def refuse(message, code=1):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(code)


def fail_while(counter, message, code):
    left = int(read(counter, "0"))
    if left:
        (CLOUD / counter).write_text(str(left - 1))
        refuse(message, code)


def local(url):
    return str(CLOUD / "gs" / url.removeprefix("gs://"))


def homes(worker="all"):
    numbers = range(int(read("hosts", "1"))) if worker == "all" else [int(worker)]
    return [(number, CLOUD / "homes" / str(number)) for number in numbers]


def take_workers():
    """The machines are gone, and all that ran and lay on them."""
    for _, home in homes():
        run = home / "nncompress_jax_run/train.log"
        if run.with_suffix(".log.lock").exists():
            with open(f"{run}.lock") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:  # held: it runs
                    os.killpg(int(Path(f"{run}.pid").read_text()), signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def ssh(worker, command):
    fail_while("ssh_failures", "[/usr/bin/ssh] exited with return code [255].", 255)
    started = []
    for number, home in homes(worker):
        hangs = str(number) in read("hanging").split()
        path = f"{CLOUD}/worker_bin:{os.environ['PATH']}"
        environment = {**os.environ, "HOME": str(home), "WORKER": str(number), "PATH": path}
        started.append(subprocess.Popen(["bash", "-c", "sleep 600" if hangs else command], cwd=home, env=environment))
    sys.exit(next((code for code in [process.wait() for process in started] if code), 0))


def answer(command, words, flags, answers):
    states = CLOUD / "states"
    match command:
        case ("projects", "describe"):
            return print(words[0]) if words[0] in answers["projects"] else refuse("not found or permission denied")
        case (*_, "accelerator-types", _):
            return print("\n".join(answers["types"])) if flags["zone"] in answers["zones"] else refuse("no such zone")
        case ("beta", *_):
            return print("\n".join("\t".join(row) for row in answers["quotas"]))
        case ("storage", "ls"):
            return None if os.path.isdir(local(words[0])) else refuse("404")
        case ("storage", "cat"):
            found = glob.glob(local(words[0]), recursive=True)
            return print(*(Path(file).read_text() for file in found)) if found else refuse("matched no objects")
        case ("storage", "rsync"):
            return shutil.copytree(local(words[0]), words[1], dirs_exist_ok=True)
    if command[-1] == "create":
        if states.exists():
            refuse("ALREADY_EXISTS")
        states.write_text(read("next_states", "WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE"))
        for _, home in homes():
            home.mkdir(parents=True)
        return None
    if not states.exists():
        refuse("NOT_FOUND: Resource was not found")
    now, *later = states.read_text().split()
    match command[-1]:
        case "describe":
            if later:
                states.write_text("\n".join(later))
            if now == "SUSPENDED":
                take_workers()
            print("WARNING: this is a fake", file=sys.stderr)
            return print(now)
        case "delete":
            fail_while("delete_failures", "FAILED_PRECONDITION: it is in state SUSPENDING", 1)
            take_workers()
            return states.unlink()
    if now != "ACTIVE":
        refuse(f"the node is not there: {now}")
    if command[-1] == "scp":
        *sources, target = words
        assert target == f"{answers['name']}:", target
        for _, home in homes(flags["worker"]):
            for source in sources:
                shutil.copy(source, home)
        return None
    assert words == [answers["name"]], words
    return ssh(flags["worker"], flags["command"])


def main(arguments):
    with open(CLOUD / "calls.jsonl", "a") as calls:
        print(json.dumps(arguments), file=calls)
    command = next((known for known in FLAGS if tuple(arguments[: len(known)]) == known), None)
    if command is None:
        refuse(f"Invalid choice: {arguments}", 2)
    rest = arguments[len(command) :]
    flags = dict(([*word[2:].split("=", 1), ""])[:2] for word in rest if word.startswith("--"))
    if flags.keys() - FLAGS[command]:
        refuse(f"unrecognized arguments: {flags.keys() - FLAGS[command]}", 2)
    if read("offline"):
        refuse("There was a problem refreshing your current auth tokens: network is unreachable")
    if read("refused"):
        refuse("PERMISSION_DENIED: Permission 'tpu.queuedResources.get' denied")
    words = [word for word in rest if not word.startswith("--")]
    answer(command, words, flags, json.loads(read("answers.json")))


if __name__ == "__main__":
    main(sys.argv[1:])
