# Looks after a slice until its training is finished; sourced by tpu.sh.
# shellcheck shell=bash disable=SC2154  # the options are variables of tpu.sh

statuses() {
  # shellcheck disable=SC2016  # the worker expands it
  on_workers all "$ssh_s" 'bash worker.sh status 2>/dev/null || echo "status $(hostname) absent"'
}

# An active slice; fails if a worker does not answer or cannot be set up.
attend() {
  local answers failed worker silent=()
  answers=$(statuses 2>/dev/null | sed -n 's/^status \(.*-w-\)\{0,1\}//p' | sort -uV) || true
  if (($(grep -c . <<<"$answers") < hosts)); then
    for ((worker = 0; worker < hosts; worker++)); do
      grep -q "^$worker " <<<"$answers" || silent+=("$worker")
    done
    say "no answer from worker ${silent[*]} of $hosts"
    return 1
  fi
  if [[ $answers != "$answered" ]]; then
    answered=$answers
    say "workers: $(paste -sd, <<<"$answers" | sed 's/,/, /g')"
  fi
  failed=$(grep -m1 ' failed ' <<<"$answers") || true
  if [[ $failed ]]; then
    on_workers all "$ssh_s" "bash worker.sh stop" || true # the others would wait for it for ever
    say "training failed on worker ${failed%% *} with exit code ${failed##* }; tpu.sh logs shows why"
    exit "${failed##* }"
  elif ! grep -qv ' finished$' <<<"$answers"; then
    say "training finished: $workdir"
    exit 0
  elif grep -Eq ' (absent|lost|stopped)$' <<<"$answers"; then
    send && run || return 1
  fi
  slices=0
}

create_again() {
  if create_resource; then
    deleted=
  fi
}

# Whatever fails here is tried again at the next look.
recreate() {
  ((slices < slices_allowed)) || give_up "$name: no training ran on $slices_allowed slices in a row; \
gcloud compute tpus queued-resources describe $(quoted "$name" "${place[@]}") may tell why"
  if delete_resource; then
    slices=$((slices + 1)) deleted=yes
    create_again
  fi
}

watch() {
  local now before='' reason='' answered='' deleted='' failures=0 slices=0 asked
  if [[ $dry_run ]]; then
    show_watch
    return
  fi
  pack
  while true; do
    read -r now reason <<<"$(state)"
    # What cannot be asked is said again each hour: nobody looks after the training then.
    if [[ $now != "$before" || ($reason && $((SECONDS - asked)) -ge 3600) ]]; then
      say "$name is $now${reason:+: $reason}"
      [[ $now == "$before" ]] || answered='' failures=0
      before=$now asked=$SECONDS
    fi
    case $now in
      ACTIVE)
        if attend; then
          failures=0
        elif ((++failures >= failures_allowed)); then
          say "$failures failures in a row; the slice is given back and asked for again"
          failures=0
          recreate
        fi
        ;;
      SUSPENDING | SUSPENDED | FAILED) recreate ;;
      REFUSED) ((++failures < failures_allowed)) || give_up "$name: Google does not answer: $reason" ;;
      MISSING) # what a person deletes stays deleted
        [[ $deleted ]] || fail "$name: no such queued resource in $zone; create it first"
        create_again
        ;;
    esac
    sleep "$((failures && retry_s << failures - 1 < poll_s ? retry_s << failures - 1 : poll_s))"
  done
}

show_watch() {
  pack
  state
  echo "# ACTIVE:"
  statuses
  echo "# and no training there, or no longer:"
  send
  run
  echo "# SUSPENDING, SUSPENDED or FAILED, or $failures_allowed failures in a row:"
  delete_resource
  create_resource
  echo "# and so on, every $poll_s s"
}
