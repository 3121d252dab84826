# The plan of a run, WORK/plan: every stage that the chain will come to, and all that its tables
# show, for those who watch a run or report on one that is half done.
#
#   stages.tsv        number, title and folder of every stage, in order
#   NAME.rows.tsv     name, label and model of every row of a domain's table
#   NAME.steps.tsv    what is compared with what: new, old, words
#   run.json          the command, languages, domains, stages asked for, machine and process
#
# The chain is called with `listing` set; then stages and rows only go into the plan.

write_plan() {  # WORK/plan: every stage and all that the table shows, for those who watch or report
  [[ ! $dry_run && ! $listing ]] || return 0
  local name
  rm -rf plan.part
  mkdir plan.part
  printf 'number\ttitle\tfolder\n' > plan.part/stages.tsv
  for name in "${names[@]}"; do
    printf 'name\tlabel\tmodel\n' > "plan.part/$name.rows.tsv"
    printf 'new\told\twords\n' > "plan.part/$name.steps.tsv"
  done
  (listing=plan.part; chain)
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
    "$last_stage" "$$" "$started_at" "${given[@]}" > plan.part/run.json
  rm -rf plan
  mv plan.part plan
}

in_plan() {  # TABLE CELL CELL CELL: a line of a table of the plan, while it is written
  [[ ! $listing ]] || printf '%s\t%s\t%s\n' "${@:2}" >> "$listing/$1.tsv"
}
