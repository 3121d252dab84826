# How chain.sh declares a stage. Nothing runs here: dad-run runs what is declared, dad-plan explains
# it, dad-report shows how far it is.
#
# Writes to the folder $plan.

stage() {  # NUMBER TITLE [dad-stage flags] -- COMMAND...
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
