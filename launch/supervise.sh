#!/usr/bin/env bash
# Keeps a training going until it is finished: supervise.sh LOGFILE -- COMMAND...
#
# What an exit code of the command leads to stands in README.md. LOGFILE takes what the command prints and a line for
# each start and exit; LOGFILE.status is `running`, `finished`, `stopped` or `failed CODE`; LOGFILE.pid is the
# supervisor's; LOGFILE.lock is held while it runs.
set -uo pipefail

first_pause_s=${SUPERVISE_FIRST_PAUSE_S:-5}
longest_pause_s=${SUPERVISE_LONGEST_PAUSE_S:-300}
crashes_allowed=${SUPERVISE_CRASHES:-5}
healthy_s=${SUPERVISE_HEALTHY_S:-600}
tpu_lock=${SUPERVISE_TPU_LOCK:-/tmp/libtpu_lockfile}

if (($# < 3)) || [[ $2 != -- ]]; then
  echo "error: supervise.sh LOGFILE -- COMMAND... was expected, found: $*" >&2
  exit 2
fi
log=$1
shift 2

note() {
  printf '%s supervise: %s\n' "$(date -u +%FT%TZ)" "$*" >>"$log"
}

# In one step: whoever reads it never finds half a word.
record() {
  echo "$*" >"$log.status.new" && mv -f "$log.status.new" "$log.status"
}

end() {
  local code=$1
  shift
  record "$@"
  note "$*"
  exit "$code"
}

# libtpu leaves its lock file behind when it is killed, and then refuses the TPU to everyone. It holds a record lock,
# which flock does not see; but as long as it lives, the file and the device are open.
remove_stale_tpu_lock() {
  [[ -e $tpu_lock ]] || return 0
  local holders
  holders=$(find /proc/[0-9]*/fd \( -lname "$tpu_lock" -o -lname '/dev/accel*' -o -lname '/dev/vfio/[0-9]*' \) 2>/dev/null)
  if [[ $holders ]]; then
    note "$tpu_lock is left: process $(cut -d/ -f3 <<<"$holders" | sort -u | paste -sd, -) holds the TPU"
  elif rm -f "$tpu_lock" 2>/dev/null; then
    note "$tpu_lock removed: no process holds the TPU"
  else
    note "$tpu_lock cannot be removed, and no process holds the TPU: sudo rm $tpu_lock"
  fi
}

# Waits for the child; a signal only interrupts the wait.
await_child() {
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
}

pause() {
  sleep "$1" 9>&- &
  child=$!
  await_child
}

# The command keeps the lock open, too: if the supervisor is killed, no second training starts beside the first.
exec 9>>"$log.lock"
if ! flock --wait 1 9; then
  echo "error: $log: already supervised by process $(cat "$log.pid"); wait for it, or stop it" >&2
  exit 1
fi
echo $$ >"$log.pid"

child=
stopping=
trap 'stopping=yes; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null' TERM INT
crashes=0 pause_s=$first_pause_s

while [[ ! $stopping ]]; do
  remove_stale_tpu_lock
  note "starts ${*@Q}"
  record running
  began=$SECONDS
  "$@" >>"$log" 2>&1 &
  child=$!
  [[ ! $stopping ]] || kill -TERM "$child" # it came between the two lines above
  await_child
  child=
  lived=$((SECONDS - began))
  note "exit code $code after $lived s"
  case $code in
    0) end 0 finished ;;
    2 | 74) end "$code" "failed $code" ;;
  esac
  [[ ! $stopping ]] || break
  if [[ $code == 75 ]]; then
    crashes=0 pause_s=$first_pause_s
    pause "$first_pause_s" # so that a worker whose neighbour is not back yet does not spin
    continue
  fi
  ((lived < healthy_s)) || crashes=0 pause_s=$first_pause_s
  ((++crashes < crashes_allowed)) || end "$code" "failed $code"
  note "crash $crashes of at most $crashes_allowed in a row; starts again in $pause_s s"
  pause "$pause_s"
  pause_s=$((2 * pause_s < longest_pause_s ? 2 * pause_s : longest_pause_s))
done
end 143 stopped
