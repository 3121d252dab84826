#!/usr/bin/env bash
# Submit an experiment to Slurm: one job after another, the domains side by side.
#
# Usage: bash recipes/slurm/submit.sh [--dry-run] EXPERIMENT
#
#   EXPERIMENT   your copy of recipes/slurm/experiment.sh
#   --dry-run    print the commands and do nothing
#
#   1 text       one machine, no GPU     stages 1 to 3
#   2 teacher    torchrun                stage 4
#   3 distil     Ray                     stage 5
#   4 students   one machine             stage 6
#   5 domains    one machine each        stages 7 to 12
#   6 rest       one machine             what several domains share
#
# Submit again after a failure: what is done is skipped.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../command_line.sh"

dry_run='' experiment_file=''
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; exit ;;
    --dry-run) dry_run=1; shift ;;
    -*) unknown_option "$0" "$1" ;;
    *) experiment_file=$1; shift ;;
  esac
done
[[ $experiment_file ]] || fail "name the experiment, your copy of recipes/slurm/experiment.sh"
[[ -f $experiment_file ]] || fail "there is no file $experiment_file"
experiment_file=$(realpath "$experiment_file")
cd "$here/../.."
source "$experiment_file"

after=''
submit() {  # NAME SBATCH-FLAG... SCRIPT [FLAGS OF run.sh]: sets after to the job's number
  local name=$1 flags=() script command
  shift
  while [[ $1 == --* ]]; do flags+=("$1"); shift; done
  script=$here/$1
  shift
  command=(
    sbatch --parsable --job-name="dad-$name" ${after:+--dependency="afterok:$after"}
    ${flags[@]+"${flags[@]}"} "$script" "$experiment_file" "$@"
  )
  if [[ $dry_run ]]; then
    print_command "${command[@]}"
    after=NUMBER-OF-$name
    return
  fi
  after=$("${command[@]}")
  after=${after%%;*}  # the cluster's name follows
  echo "$name: job $after"
}

submit text text.sbatch
submit teacher --nodes="$teacher_nodes" teacher.sbatch
submit distil --nodes="$distil_nodes" distil.sbatch
submit students node.sbatch --stage 6 --stop-stage 6
submit domains --array="0-$(( ${#domains[@]} - 1 ))" domains.sbatch
submit rest node.sbatch
