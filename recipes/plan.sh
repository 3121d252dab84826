# The plan of a run, WORK/plan: every stage that the chain comes to, and all that its tables show.
# Nothing runs here: dad-run runs what is planned, dad-plan explains it, dad-report shows how far
# it is.
#
#   stages.json       every stage: number, title, folder, what it reads, its command
#   NAME.rows.tsv     the rows of a domain's table: name, label and model of each, and what it is
#   NAME.steps.tsv    what is compared with what: new, old, words
#   run.json          the command, languages, domains, stages asked for, machine and process

make_plan() {  # FOLDER DECLARE: the plan of the stages that a function declares
  local name
  plan=$1
  rm -rf "$plan"
  mkdir "$plan"
  : > "$plan/declared"
  for name in "${names[@]}"; do
    in_table "$name.rows" name group label model size configuration variant seed
    in_table "$name.steps" new old words
  done
  "$2"
  pipeline graph --declared "$plan/declared" --out "$plan/stages.json"
  rm "$plan/declared"
  describe_run > "$plan/run.json"
}

stage() {  # NUMBER TITLE [dad-stage flags] -- COMMAND...: declare it
  local words
  printf -v words '%s\x1f' "$@"
  [[ $words != *$'\n'* ]] || fail "a name or value has two lines: '$*'"
  echo "${words%$'\x1f'}" >> "$plan/declared"
}

in_table() {  # TABLE CELL...: a line of a table of the plan
  local line
  printf -v line '%s\t' "${@:2}"
  echo "${line%$'\t'}" >> "$plan/$1.tsv"
}

describe_run() {
  "$python" -c '
import json, socket, sys
source, target, sizes, teacher_size, domains, configurations, variants, seeds, first, last, pid, \
    started, *command = sys.argv[1:]
json.dump({
    "command": command, "source_lang": source, "target_lang": target, "sizes": sizes.split(),
    "teacher_size": teacher_size, "domains": domains.split(),
    "configurations": [int(number) for number in configurations.split()],
    "variants": variants.split(), "seeds": [int(seed) for seed in seeds.split()],
    "stages": [int(first), int(last)], "started": started,
    "host": socket.gethostname(), "pid": int(pid),
}, sys.stdout, indent=2, ensure_ascii=False)
print()
' "$source_lang" "$target_lang" "${sizes[*]}" "$teacher_size" "${names[*]}" "${configurations[*]}" \
    "$(printf '%s\n' "${variants[@]#* }" | sort -u | tr '\n' ' ')" "${seeds[*]}" "$first_stage" \
    "$last_stage" "$$" "$started_at" "${given[@]}"
}

pipeline() {  # MODULE WORD...: one of data_prep.pipeline; those who only look need no set-up
  PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -m "data_prep.pipeline.$1" "${@:2}"
}
