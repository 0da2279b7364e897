# What must be there before a slice is asked for; sourced by tpu.sh. One line for each thing, and all of them at once.
# shellcheck shell=bash disable=SC2154  # the options are variables of tpu.sh

# report VERDICT WHAT
report() {
  [[ $dry_run ]] || printf '%-12s %s\n' "$1" "$2"
}

# wrong WHAT WHAT-TO-DO
wrong() {
  report wrong "$1; $2"
  problems=$((problems + 1))
}

# ask COMMAND...: its answer; in a dry run the command is shown, past whoever takes the answer.
ask() {
  if [[ $dry_run ]]; then
    step "$@" >&3
  else
    bounded "$ssh_s" "$@" 2>/dev/null
  fi
}

check_tools() {
  local tool
  for tool in gcloud git timeout; do
    if command -v "$tool" >/dev/null; then
      report ok "$tool"
    else
      wrong "$tool is not installed" "it is needed here: install it"
    fi
  done
}

check_project() {
  if ask gcloud projects describe "$project" --format='value(projectId)' >/dev/null; then
    report ok "project $project"
  else
    wrong "project $project cannot be seen" "gcloud auth login, or another --project="
  fi
}

check_zone() {
  local types
  if ! types=$(ask gcloud compute tpus tpu-vm accelerator-types list "${place[@]}" --format='value(type)'); then
    wrong "zone $zone cannot be asked for its TPUs" \
      "check its name, and gcloud services enable tpu.googleapis.com --project=$project"
  elif grep -qFx -- "$accelerator_type" <<<"$types"; then
    report ok "$accelerator_type in $zone"
  else
    wrong "$accelerator_type is not offered in $zone" \
      "another --zone=, or one of: $(sort -uV <<<"$types" | paste -sd' ' -)"
  fi
}

# Quotas carry names of their own for each type, apart for spot, and a zone may come under several of them.
check_quota() {
  local rows what="quota for $accelerator_type${spot:+, spot,} in $zone"
  rows=$(
    ask gcloud beta quotas info list --service=tpu.googleapis.com --project="$project" --quiet \
      --filter="quotaId ~ ^$quota" --flatten='dimensionsInfos[]' \
      --format='value(quotaId,dimensionsInfos.details.value,dimensionsInfos.applicableLocations)' |
      awk -F'\t' -v spot="${spot:+1}" -v zone="$zone" \
        '($1 ~ /Preemptible/) == (spot != "") && index(";" $3 ";", ";" zone ";") {print $1, $2 + 0}'
  ) || true
  if [[ ! $rows ]]; then
    report "not checked" "$what: gcloud does not tell it; see IAM & Admin > Quotas in the console"
  elif grep -qv ' 0$' <<<"$rows"; then
    report ok "$what: $(paste -sd, <<<"$rows" | sed 's/,/, /g')"
  else
    wrong "$what is 0" "ask for it in the console: IAM & Admin > Quotas, or try ${spot:+without }--spot"
  fi
}

check_bucket() {
  if ask gcloud storage ls "$bucket" >/dev/null; then
    report ok "bucket $bucket"
  else
    wrong "$bucket cannot be listed" "gcloud storage buckets create $bucket, or the right to read it"
  fi
}

check_data() {
  local place_of=$data/${dataset%%:*} found
  if [[ $dataset == digits ]]; then
    report ok "digits comes with the environment"
  elif [[ $data_dir ]]; then
    report "not checked" "$dataset in $data_dir: the folder is on the workers"
  elif ! found=$(ask gcloud storage cat "$place_of/**/dataset_info.json"); then
    wrong "$place_of holds no prepared data set" "prepare $dataset and copy it there (launch/README.md), or another --data="
  elif [[ $found =~ \"fileFormat\":\ *\"array_record\" ]]; then
    report ok "$dataset in $data"
  else
    wrong "$place_of is not in the array_record format" "prepare $dataset with file_format='array_record'"
  fi
}

preflight() {
  local problems=0
  exec 3>&1
  check_tools
  if [[ $dry_run ]] || command -v gcloud >/dev/null; then
    check_project
    check_zone
    check_quota
    check_bucket
    check_data
  fi
  [[ $dry_run ]] || ((problems == 0)) || fail "$problems of these are wrong; nothing was asked for"
}
