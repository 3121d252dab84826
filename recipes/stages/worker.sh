#!/usr/bin/env bash
# One worker of a training: what torchrun starts on every GPU for train.sh.
#
# Usage: torchrun ... --no-python worker.sh WORKERS fairseq-train FLAG...
#
#   WORKERS   how many there must be, all machines together; the batch was divided by that
#
# fairseq can read torchrun's numbers by itself, but does not where a machine has one GPU or none:
# there every worker would train alone, all into one folder.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../command_line.sh"

[[ ${1-} != --help && ${1-} != -h ]] || { script_help "$0"; exit; }
[[ ${WORLD_SIZE-} && ${RANK-} && ${LOCAL_RANK-} ]] || fail "is started by torchrun; see DAD_LAUNCHER in train.sh --help"
workers=$1
shift
(( WORLD_SIZE == workers )) || fail "\
train.sh has divided the batch by $workers workers, but $WORLD_SIZE were started; let torchrun's \
--nnodes and --nproc-per-node agree with what it starts"

train=(
  "$@" --distributed-init-method env:// --distributed-no-spawn
  --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK" --device-id "$LOCAL_RANK"
)
if [[ " ${train[*]} " == *" --cpu "* ]]; then
  train+=(--distributed-backend gloo --ddp-backend legacy_ddp)
fi
# a worker has a session of its own: killed with -9, torchrun would leave it training
! command -v setpriv > /dev/null || train=(setpriv --pdeathsig KILL "${train[@]}")
exec "${train[@]}"
