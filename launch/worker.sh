#!/usr/bin/env bash
# What tpu.sh does on each worker of a slice: worker.sh setup|start|status|stop|logs. It travels with the code.
set -euo pipefail

code=$HOME/nncompress_jax
environment=$HOME/nncompress_jax_env
log=$HOME/nncompress_jax_run/train.log
worker=$(hostname)
worker=${worker##*-w-} # TPU VMs are called t1v-n-1a2b3c4d-w-0, -w-1, ...

say() {
  echo "worker $worker: $*"
}

fail() {
  say "$*" >&2
  exit 2
}

running() {
  [[ -e $log.lock ]] && ! flock --shared --nonblock "$log.lock" true
}

unpack() {
  rm -rf "$code.new"
  mkdir "$code.new"
  tar -xzf "$HOME/nncompress_jax.tar.gz" -C "$code.new"
  rm -rf "$code"
  mv "$code.new" "$code"
}

# The images bring an older Python than the project needs; uv brings its own. The lock file gives every worker, and
# every slice that comes after this one, the same versions.
install() {
  local wanted
  wanted=$(cat "$code/pyproject.toml" "$code/requirements.lock" | sha256sum)
  if [[ -e $environment/.ready && $(<"$environment/.ready") == "$wanted" ]]; then
    say "environment is there"
    return
  fi
  rm -rf "$environment"
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --python=3.12 "$environment"
  python3 -m uv pip install --quiet --python="$environment/bin/python" --constraint="$code/requirements.lock" \
    --editable="${code}[tpu,train]" || return 1 # uv's own 2 may be the network; here 2 means that it would come again
  echo "$wanted" >"$environment/.ready"
  say "environment installed"
}

# setup DATA DATASET COMMAND: code, environment, and the data set from the bucket unless DATA is empty; then COMMAND.
setup() {
  if running; then
    say "training is running; left as it is"
    return
  fi
  exec 8>>"$HOME/.nncompress_jax_setup.lock"
  flock 8 # one whose ssh connection broke may still be at it
  unpack
  install
  if [[ $1 ]]; then
    mkdir -p "$HOME/tensorflow_datasets/$2"
    gcloud storage rsync --recursive "$1/$2" "$HOME/tensorflow_datasets/$2"
  fi
  bash -c "$3" 8>&- # what it leaves running must not keep the lock
  say "set up"
}

# start FLAGS...: of the training.
start() {
  if running; then
    say "training is already running; nothing is started"
    return
  fi
  [[ -e $environment/.ready ]] || fail "no environment in $environment; run tpu.sh setup first"
  mkdir -p "$(dirname "$log")"
  rm -f "$log.status"
  cd "$code"
  # shellcheck disable=SC2094  # both append
  PYTHONUNBUFFERED=1 setsid nohup bash launch/supervise.sh "$log" -- \
    "$environment/bin/python" experiments/train.py "$@" </dev/null >>"$log" 2>&1 &
  for _ in {1..100}; do
    if [[ -e $log.status ]]; then
      say "training started"
      return
    fi
    sleep 0.1
  done
  fail "training did not start; see tpu.sh logs"
}

# One line: absent, running, lost (it ran when the machine went down), finished, stopped or failed CODE.
status() {
  local state=absent
  [[ ! -e $log.status ]] || state=$(<"$log.status")
  [[ $state != running ]] || running || state=lost
  echo "status $worker $state"
}

stop() {
  running || return 0
  # Where the supervisor was killed, the training is left, in the same process group.
  kill -TERM "$(<"$log.pid")" 2>/dev/null || kill -TERM -- "-$(<"$log.pid")"
  flock --wait 60 "$log.lock" true || fail "training goes on 60 s after it was told to stop"
  say "training stopped"
}

# logs [--follow]
logs() {
  [[ -e $log ]] || fail "no log yet; run tpu.sh run first"
  tail -n 100 ${1:+-F} "$log" | sed -u "s/^/[$worker] /"
}

verb=${1:-}
case $verb in
  setup | start | status | stop | logs) "$verb" "${@:2}" ;;
  *) fail "unknown verb '$verb'; expected setup, start, status, stop or logs" ;;
esac
