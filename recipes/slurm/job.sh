# What the jobs of this folder share. Sourced by them, from the checkout.

if [[ ! -f ${1-} ]]; then
  echo "$SLURM_JOB_NAME: error: name the experiment: sbatch ... recipes/slurm/experiment.sh" >&2
  exit 1
fi
source "$1"

most_restarts=50
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_node=${nodes[0]}
port=$(( 20000 + SLURM_JOB_ID % 20000 ))         # another for each job
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # srun does not take it over by itself

go_on() {  # COMMAND...: run it; shortly before the job's time is over, stop it and queue the job again
  local child status=0 out_of_time=''
  "$@" &
  child=$!
  trap 'out_of_time=1; kill -TERM "$child" || true' USR1
  wait "$child" || status=$?
  [[ $out_of_time ]] || exit "$status"
  wait "$child" || true  # the signal ended the first wait; now the command has ended
  if (( ${SLURM_RESTART_COUNT:-0} >= most_restarts )); then
    echo "$SLURM_JOB_NAME: error: queued again $most_restarts times already; look at its log" >&2
    exit 1
  fi
  scontrol requeue "$SLURM_JOB_ID"
}
