#!/usr/bin/env bash
# Trains on a Cloud TPU slice that may be taken away; README.md tells how.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu.sh VERB [OPTIONS] [-- FLAGS OF THE TRAINING]

  preflight  checks project, zone, quota, bucket and data
  create     preflight, then asks for the slice: a queued resource
  setup      waits for the slice; brings code, environment and data to all its workers
  run        starts the training on all workers
  watch      setup, run and, after each preemption, create, until the training is finished
  logs       shows the end of the workers' logs
  delete     gives the slice back

  --name=               of the queued resource, its node and the run     $TPU_NAME
  --project=            of Google Cloud                                  $TPU_PROJECT
  --zone=               as us-west4-a                                    $TPU_ZONE
  --accelerator-type=   as v5litepod-8, v5litepod-16, v6e-8, v4-32       $TPU_ACCELERATOR_TYPE
  --bucket=             gs://...                                         $TPU_BUCKET
  --spot                a slice that costs less and may be taken away
  --workdir=            of the run; by default BUCKET/runs/NAME
  --data=               prepared data sets; by default BUCKET/tensorflow_datasets
  --data-dir=           a folder on the workers; then nothing is copied there from --data
  --setup-command=      a line of shell that each worker runs at the end of setup
  --runtime-version=    by default the one that goes with the accelerator type
  --worker=             logs: all or the number of one; by default all
  --follow              logs: goes on as they grow
  --dry-run             prints the commands, and runs none

The training gets --model=vgg16ds where no --model is given.
END
}

# What was given is wrong.
fail() {
  echo "error: $*" >&2
  exit 2
}

give_up() {
  echo "stopped: $*" >&2
  exit 1
}

say() {
  [[ $dry_run ]] || echo "$(date +%FT%T) $*"
}

# What is left at the end, however it came, and how to delete it: a slice costs until it is deleted.
# shellcheck disable=SC2329  # a trap calls it
say_what_is_left() {
  trap '' INT TERM HUP
  local now reason delete
  delete="to delete it: gcloud $(quoted compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet)"
  read -r now reason <<<"$(ssh_s=$goodbye_s state)"
  case $now in
    MISSING) say "$name: no queued resource is left, and nothing costs" ;;
    SUSPENDED | FAILED) say "$name is left, $now: it costs nothing, does not come back, and keeps its name; $delete" ;;
    ACTIVE) say "$name is ACTIVE: the slice is still there, and costs; $delete" ;;
    UNKNOWN | REFUSED) say "$name may still be there, and cost: it cannot be asked for ($reason); $delete" ;;
    *) say "$name is left, $now: once it is ACTIVE, it costs; $delete" ;;
  esac
}

# The words as one line of shell, for a person to paste or for the shell of a worker.
quoted() {
  local word line='' inner="'\\''"
  for word; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word="'${word//"'"/"$inner"}'"
    line+=" $word"
  done
  printf '%s' "${line:1}"
}

step() {
  if [[ $dry_run ]]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# bounded SECONDS COMMAND...; 0 is no bound. The command waits in the background, since timeout gives it a process
# group of its own, which Ctrl-C does not reach.
bounded() (
  if [[ $dry_run ]]; then
    step timeout --kill-after=10 "$@"
    return
  fi
  trap 'kill "$child" 2>/dev/null || true' EXIT INT TERM
  timeout --kill-after=10 "$@" </dev/null &
  child=$!
  wait "$child"
)

# Again, with longer and longer pauses: a machine that has just started may not answer yet. 2 would come again.
retried() {
  local pause=$retry_s tries=1 code
  while true; do
    code=0
    "$@" || code=$?
    ((code != 0 && code != 2 && tries++ < failures_allowed)) || return "$code"
    say "failed with exit code $code; again in $pause s"
    sleep "$pause"
    pause=$((2 * pause))
  done
}

# on_workers WORKERS SECONDS COMMAND; the command is a line of shell. Without messages between ssh and the machine, a
# machine that is taken away would be waited for until the time is over.
on_workers() {
  bounded "$2" gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --quiet \
    --ssh-flag=-oServerAliveInterval=30 --command="$3"
}

create_resource() {
  step gcloud compute tpus queued-resources create "$name" --node-id="$name" "${place[@]}" \
    --accelerator-type="$accelerator_type" --runtime-version="$runtime_version" ${spot:+--spot}
}

delete_resource() {
  step gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

# What Google calls it, or MISSING; UNKNOWN where it cannot be asked just now, REFUSED where Google does not answer
# this user, both with the reason.
state() {
  local answer
  local -a ask=(gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format='value(state.state)')
  if [[ $dry_run ]]; then
    step "${ask[@]}"
  elif answer=$(bounded "$ssh_s" "${ask[@]}" 2>&1); then
    grep -xm1 '[A-Z_]*' <<<"$answer" || echo UNKNOWN
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo MISSING
  elif [[ $answer =~ PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|invalid_grant|gcloud\ auth\ login ]]; then
    echo "REFUSED $(grep . <<<"$answer" | head -n1)"
  else
    echo "UNKNOWN $(grep . <<<"${answer:-no answer within $ssh_s s}" | head -n1)"
  fi
}

await_active() {
  local now='' before='' reason='' began=$SECONDS
  while true; do
    read -r now reason <<<"$(state)"
    [[ $now == "$before" ]] || say "$name is $now${reason:+: $reason}"
    before=$now
    case $now in
      ACTIVE) return ;;
      MISSING) fail "$name: no such queued resource in $zone; create it first" ;;
      REFUSED) fail "$name: Google does not answer: $reason" ;;
      FAILED | SUSPENDED) give_up "$name is $now and will not come; delete it and create it again, or watch it" ;;
    esac
    ((SECONDS - began < wait_s)) || give_up "$name is still $now after $wait_s s; set it up later, or watch it"
    sleep "$poll_s"
  done
}

# What is committed is sent: each slice of a run gets the same code.
pack() {
  if [[ ! $dry_run && $(git -C "$root" status --porcelain --untracked-files=no) ]]; then
    say "changes that are not committed are not sent"
  fi
  step mkdir -p "$packed"
  step git -C "$root" archive --format=tar.gz --output="$packed/nncompress_jax.tar.gz" HEAD
}

send() {
  local copied=$data
  [[ ! $data_dir && $dataset != digits ]] || copied=
  bounded "$setup_s" gcloud compute tpus tpu-vm scp "$packed/nncompress_jax.tar.gz" "$name:" "${place[@]}" \
    --worker=all --quiet --scp-flag=-oServerAliveInterval=30 &&
    on_workers all "$setup_s" "tar -xzf nncompress_jax.tar.gz --strip-components=1 launch/worker.sh && $(
      quoted bash worker.sh setup "$copied" "${dataset%%:*}" "$setup_command"
    )"
}

setup() {
  if [[ $dry_run ]]; then
    state
  else
    await_active
  fi
  pack
  retried send
}

run() {
  on_workers all "$ssh_s" "$(
    quoted bash worker.sh start --platform=tpu --workdir="$workdir" ${data_dir:+"--data_dir=$data_dir"} "${train[@]}"
  )"
}

logs() {
  on_workers "$worker" "$([[ $follow ]] && echo 0 || echo "$ssh_s")" "bash worker.sh logs${follow:+ --follow}"
}

delete() {
  delete_resource
  trap - EXIT
  say "the bucket keeps what the run left${bucket:+: $workdir}"
}

# The version of the slice's software, the number of its hosts, and how the names of its quotas begin. The number in
# the type counts chips (v5litepod, v6e: up to 8 on one host, else 4 on each) or TensorCores (8 on each host).
read_accelerator_type() {
  local known='^(v2|v3|v4|v5p|v5litepod|v6e)-([1-9][0-9]*)$' version
  [[ $accelerator_type =~ $known ]] ||
    fail "--accelerator-type=$accelerator_type: expected one as v2-8, v3-8, v4-32, v5p-8, v5litepod-16 or v6e-8"
  local size=${BASH_REMATCH[2]} per_host=8
  case ${BASH_REMATCH[1]} in
    v2 | v3 | v4) version=tpu-ubuntu2204-base quota=TPU${BASH_REMATCH[1]^^} ;;
    v5p) version=v2-alpha-tpuv5 quota=TPUV5P ;;
    v5litepod) version=v2-alpha-tpuv5-lite quota=TPUV5s per_host=4 ;;
    v6e) version=v2-alpha-tpuv6e quota=TPUV6E per_host=4 ;;
  esac
  hosts=$((size <= 8 ? 1 : (size + per_host - 1) / per_host))
  runtime_version=${runtime_version:-$version}
}

read_options() {
  while (($#)); do
    case $1 in
      --)
        train=("${@:2}")
        return
        ;;
      --help) usage && exit ;;
      --spot) spot=yes ;;
      --dry-run) dry_run=yes ;;
      --follow) follow=yes ;;
      --name=* | --project=* | --zone=* | --accelerator-type=* | --bucket=* | --workdir=* | --data=* | --data-dir=* | \
        --setup-command=* | --runtime-version=* | --worker=*)
        local option=${1%%=*}
        option=${option#--}
        printf -v "${option//-/_}" %s "${1#*=}"
        ;;
      *) fail "unknown option '$1'; --help shows them all, and flags of the training come after --" ;;
    esac
    shift
  done
}

# Which model, and which data set.
read_training_flags() {
  local i model=
  for ((i = 0; i < ${#train[@]}; i++)); do
    case ${train[i]} in
      --model | --model=*) model=given ;;
      --dataset) dataset=${train[i + 1]:-} ;;
      --dataset=*) dataset=${train[i]#*=} ;;
    esac
  done
  [[ $model ]] || train=(--model=vgg16ds "${train[@]}")
}

require() {
  local option missing=()
  for option; do
    [[ ${!option} ]] || missing+=("--${option//_/-}")
  done
  ((${#missing[@]} == 0)) || fail "missing: ${missing[*]}; --help tells what each is"
}

main() {
  local verb=${1:-}
  case $verb in
    '' | help | --help) usage && return ;;
    preflight | create | setup | run | watch | logs | delete) ;;
    *) fail "unknown verb '$verb'; expected create, setup, run, watch, logs, delete or preflight" ;;
  esac
  # Not local: what is left is said when the functions have ended.
  name=${TPU_NAME:-} project=${TPU_PROJECT:-} zone=${TPU_ZONE:-} dry_run=''
  ssh_s=${TPU_SSH_S:-180} goodbye_s=${TPU_GOODBYE_S:-20}
  local bucket=${TPU_BUCKET:-}
  local accelerator_type=${TPU_ACCELERATOR_TYPE:-} runtime_version='' spot='' follow='' worker=all
  local workdir='' data='' data_dir='' setup_command='' dataset=cifar10 quota hosts
  local -a train=()
  read_options "${@:2}"
  read_training_flags
  if [[ $verb == logs || $verb == delete ]]; then
    require name project zone
  else
    require name project zone accelerator_type bucket
    [[ $bucket == gs://?* ]] || fail "--bucket=$bucket: expected gs:// and the bucket's name"
    read_accelerator_type
  fi
  bucket=${bucket%/}
  workdir=${workdir:-$bucket/runs/$name} data=${data:-$bucket/tensorflow_datasets}
  place=(--project="$project" --zone="$zone")
  local root packed=${XDG_CACHE_HOME:-$HOME/.cache}/nncompress_jax/launch/$name
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  local poll_s=${TPU_POLL_S:-60} retry_s=${TPU_RETRY_S:-5} setup_s=${TPU_SETUP_S:-7200}
  local wait_s=${TPU_WAIT_S:-21600} failures_allowed=${TPU_FAILURES:-5} slices_allowed=${TPU_SLICES:-10}
  # shellcheck source-path=SCRIPTDIR source=preflight.sh
  source "$root/launch/preflight.sh"
  # shellcheck source-path=SCRIPTDIR source=watch.sh
  source "$root/launch/watch.sh"
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  case $verb in create) preflight ;; esac
  case $verb in
    create | setup | run | watch | delete) [[ $dry_run ]] || trap say_what_is_left EXIT ;;
  esac
  case $verb in
    preflight) preflight ;;
    create) create_resource ;;
    setup) setup ;;
    run) retried run ;;
    watch) watch ;;
    logs) logs ;;
    delete) delete ;;
  esac
}

# Bash has read all of it before it runs: the file may change while watch goes on for days.
{
  main "$@"
  exit
}
