# How chain.sh runs a stage: once, alone or beside others, stopped by signals; or only shown, or
# listed in the plan.
#
# Reads first_stage, last_stage, dry_run, listing and jobs_at_once.

shown=0
heading() {  # NUMBER TITLE: once for each stage
  (( $1 != shown && $1 >= first_stage && $1 <= last_stage )) || return 0
  [[ ! $listing ]] || return 0
  printf '\nStage %s of 12: %s\n' "$1" "$2" >&2
  shown=$1
}

beside() {  # NUMBER TITLE COMMAND...: start a part of a stage that depends on no other part
  heading "$1" "$2"
  shift 2
  if (( jobs_at_once == 1 )) || [[ $dry_run || $listing ]]; then
    "$@"
    return
  fi
  while (( $(jobs -pr | wc -l) >= jobs_at_once )); do sleep 0.1; done
  local threads=$(( $(nproc) / jobs_at_once ))
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( threads > 0 ? threads : 1 ))} "$@" &
  started+=($!)
}
started=()

all_done() {  # wait for all that was started beside each other
  local process failed=''
  for process in ${started[@]+"${started[@]}"}; do
    wait "$process" || failed=1
  done
  started=()
  [[ ! $failed ]] || fail "a stage failed; what it said stands above"
}

stop_started() {  # Ctrl-C and SIGTERM do not reach what runs in the background
  local process
  started+=(${!:-})  # a signal may come before it was noted
  for process in "${started[@]}"; do kill "$process" 2> /dev/null || true; done
  for process in "${started[@]}"; do wait "$process" 2> /dev/null || true; done
}
heed_signals() {  # in every shell that starts something
  trap stop_started EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

stage() {  # NUMBER TITLE [dad-stage flags] -- COMMAND...
  local number=$1 title=$2 flags=()
  shift 2
  while [[ $1 != -- ]]; do flags+=("$1"); shift; done
  shift
  if [[ $listing ]]; then
    in_plan stages "$number" "$title" "$(out_of "${flags[@]}")"
    return
  fi
  (( number >= first_stage && number <= last_stage )) || return 0
  heading "$number" "$title"
  if [[ ! $dry_run ]]; then
    # the bars of several would write over each other
    (( jobs_at_once == 1 )) || [[ " ${flags[*]} " == *" --screen "* ]] || flags+=(--screen lines)
    # in the background and waited for, because a shell in wait heeds signals at once
    heed_signals
    dad-stage "${flags[@]}" -- "$@" &
    started=($!)
    wait "$!"
    started=()
    return
  fi
  # in a dry run the stage scripts say what they would call
  set -- "${@//\{out\}/$(out_of "${flags[@]}")}"
  case $1 in
    *.sh) "$1" --dry-run "${@:2}" ;;
    *) print_command "$@" ;;
  esac
}

out_of() {  # DAD-STAGE-FLAG...: the folder that the stage makes
  while [[ $1 != --out ]]; do shift; done
  echo "$2"
}
