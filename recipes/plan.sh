# The plan of a run, WORK/plan: every stage that the chain comes to, and all that its tables show.
#
#   stages.json       every stage: number, title, folder, what it reads, its command
#   NAME.rows.tsv     the rows of a domain's table: name, label and model of each
#   NAME.steps.tsv    what is compared with what: new, old, words
#   run.json          the command, languages, domains, stages asked for, machine and process
#
# Written before anything runs, by calling the chain, which only declares.

make_plan() {  # FOLDER DECLARE...: a plan of the stages that a function declares
  local plan=$1 name
  rm -rf "$plan"
  mkdir "$plan"
  : > "$plan/declared"
  for name in "${names[@]}"; do
    in_table "$name.rows" name label model
    in_table "$name.steps" new old words
  done
  "${@:2}"
  python -m data_prep.pipeline.graph --declared "$plan/declared" --out "$plan/stages.json"
  rm "$plan/declared"
  describe_run > "$plan/run.json"
}

describe_run() {
  python -c '
import json, socket, sys
source, target, size, domains, configurations, first, last, pid, started, *command = sys.argv[1:]
json.dump({
    "command": command, "source_lang": source, "target_lang": target, "size": size,
    "domains": domains.split(), "configurations": [int(number) for number in configurations.split()],
    "stages": [int(first), int(last)], "started": started,
    "host": socket.gethostname(), "pid": int(pid),
}, sys.stdout, indent=2, ensure_ascii=False)
print()
' "$source_lang" "$target_lang" "$size" "${names[*]}" "${configurations[*]}" "$first_stage" \
    "$last_stage" "$$" "$started_at" "${given[@]}"
}

run_plan() {  # [exec] DAD-RUN-FLAG...
  local before=()
  if [[ ${1-} == exec ]]; then before=(exec); shift; fi
  "${before[@]}" dad-run --work . --jobs "$jobs_at_once" --first "$first_stage" \
    --last "$last_stage" "$@"
}
