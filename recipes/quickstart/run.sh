#!/usr/bin/env bash
# The whole chain on real German-English text, on a CPU, in about a quarter of an hour:
# set up, teacher, distil, student, adapt, distil again, student, report.
#
# Usage: bash recipes/quickstart/run.sh [--work DIR] [--short] [OPTIONS OF recipes/chain.sh]
#
#   --work DIR   where the run goes (default: runs/quickstart)
#   --short      few lines and updates, to see that everything works; the scores mean nothing
#
# Run it again to go on after a stop; what is done is not done again.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
source "$root/recipes/command_line.sh"

work='' short='' options=()
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; echo; script_help "$root/recipes/chain.sh"; exit ;;
    --work) work=$2; shift 2 ;;
    --short) short=1; shift ;;
    *) options+=("$1"); shift ;;
  esac
done
main() {
  if [[ $short ]]; then
    work=${work:-$root/runs/quickstart-short}
    options+=(--lines 2000 --updates 30)
  fi
  work=${work:-$root/runs/quickstart}

  SECONDS=0
  # nothing is to be installed for those who only look
  [[ " ${options[*]-} " =~ " "(--dry-run|--plan)" " ]] || source "$root/recipes/bootstrap.sh"
  set_up=$SECONDS
  bash "$root/recipes/chain.sh" --config "$here/config.sh" --work "$work" ${options[@]+"${options[@]}"}
  [[ ! " ${options[*]-} " =~ " "(--dry-run|--plan)" " && -e $work/report/suttas/table.txt ]] || exit 0
  time_and_note
}

time_and_note() {
  cat <<NOTE

Time by stage (set-up: $set_up s)
$(dad-stage --times "$work")

The report, for a browser: $work/report/suttas/report.html
The models side by side, in a browser:
  source $root/recipes/bootstrap.sh; dad-translate --serve --run $work
The students with all that their users need: $work/shipped/suttas/miniature

This is a demonstration${short:+ with hardly any training}: short sentences, models of 0.5 to 4.5 million
parameters, minutes of training on a CPU. It shows how the steps hang together, not what
they can bring. A real run takes millions of sentence pairs, a teacher of 60 million
parameters and some days on a GPU: recipes/de-en/run.sh --help
NOTE
}

# on one line: bash has read all of this file by then, so editing it cannot disturb a run
main; exit
