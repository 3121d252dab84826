#!/usr/bin/env bash
# Train one model and leave its best checkpoint, with its vocabulary, in OUT.
#
# Usage: train.sh --data DIR --out DIR --size NAME [--init MODEL] [options] [-- FAIRSEQ-TRAIN-FLAGS]
#
#   --data DIR               prepared folder: training bitext, dev set, vocabulary
#   --out DIR                folder to fill; run again after a stop, training goes on from there
#   --size NAME              large, medium, small, tiny, miniature-teacher or miniature
#   --init MODEL             model folder to start from (weights only): this is adapting
#   --loss NAME              plain (label-smoothed cross-entropy), word or selective (with
#                            --teacher-cache), sequence-risk (with --candidates)
#   --teacher-cache LIST     folders made by dad-cache-teacher, joined by colons
#   --candidates DIR         folder made by dad-candidates
#   --adapt NAME             how --init is adapted: plain, anchored, ewc (with --fisher),
#                            replay=SHARE (with --general), lora
#   --fisher FILE            file made by dad-estimate-fisher for --init
#   --general DIR            prepared folder of general-domain bitext
#   --updates N              stop after so many updates
#   --lr X                   peak learning rate
#   --warmup N               updates until the peak; constant afterwards, or see --schedule
#   --schedule NAME          fixed (the paper's constant rate) or inverse_sqrt
#   --max-tokens N           target tokens in a batch
#   --update-frequency N     batches in an update
#   --epoch-fraction X       validate every X passes over the data
#   --patience N             stop after N validations without a better dev BLEU
#   --dropout X              dropout probability
#   --valid-beam N           beam of the decoding in validation
#   --precision NAME         fp32, fp16 or bf16 (the last two need a GPU)
#   --seed N                 random seed
#   --dry-run                print the commands and do nothing
#
# The best checkpoint is that with the highest BLEU of greedily decoded, detokenised dev text.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
plugins=$(cd "$here/../../fairseq_plugins" && pwd)
source "$here/../sizes.sh"
source "$here/../command_line.sh"

init='' updates=100000 lr=0.0002 warmup=1 schedule=fixed max_tokens=4096 update_frequency=1
epoch_fraction=1 patience=10 dropout=0.1 valid_beam=5 precision=fp32 seed=1 dry_run=''
data='' out='' size_name='' extra=()
loss=plain teacher_cache='' candidates='' adapt=plain fisher='' general=''
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; exit ;;
    --data) data=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --size) size_name=$2; shift 2 ;;
    --init) init=$2; shift 2 ;;
    --loss) loss=$2; shift 2 ;;
    --teacher-cache) teacher_cache=$2; shift 2 ;;
    --candidates) candidates=$2; shift 2 ;;
    --adapt) adapt=$2; shift 2 ;;
    --fisher) fisher=$2; shift 2 ;;
    --general) general=$2; shift 2 ;;
    --updates) updates=$2; shift 2 ;;
    --lr) lr=$2; shift 2 ;;
    --warmup) warmup=$2; shift 2 ;;
    --schedule) schedule=$2; shift 2 ;;
    --max-tokens) max_tokens=$2; shift 2 ;;
    --update-frequency) update_frequency=$2; shift 2 ;;
    --epoch-fraction) epoch_fraction=$2; shift 2 ;;
    --patience) patience=$2; shift 2 ;;
    --dropout) dropout=$2; shift 2 ;;
    --valid-beam) valid_beam=$2; shift 2 ;;
    --precision) precision=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; extra=("$@"); break ;;
    *) unknown_option "$0" "$1" ;;
  esac
done
require_option "$0" --data "$data"
require_option "$0" --out "$out"
require_option "$0" --size "$size_name"
size_flags "$size_name"

case $precision in
  fp32) precision_flags=() ;;
  fp16 | bf16) precision_flags=("--$precision") ;;
  *) fail "--precision is fp32, fp16 or bf16, not $precision" ;;
esac

case $loss in
  plain) criterion=(--criterion label_smoothed_cross_entropy) ;;
  word | selective)
    require_option "$0" --teacher-cache "$teacher_cache"
    criterion=(--criterion "${loss}_distillation" --teacher-cache "$teacher_cache")
    ;;
  sequence-risk)
    require_option "$0" --candidates "$candidates"
    criterion=(--criterion minimum_risk --candidates "$candidates")
    ;;
  *) fail "--loss is plain, word, selective or sequence-risk, not '$loss'" ;;
esac

check_adapt "$adapt"
[[ $adapt == plain ]] || require_option "$0" --init "$init"
[[ $adapt != anchored && $adapt != ewc || $loss == plain ]] \
  || fail "--adapt $adapt and --loss $loss are two losses for one training; leave one out"
adaptation=()
case $adapt in
  anchored) criterion=(--criterion anchored_adaptation) ;;
  ewc)
    require_option "$0" --fisher "$fisher"
    criterion=(--criterion anchored_adaptation --anchor-weight 0 --fisher "$fisher")
    ;;
  replay=*)
    require_option "$0" --general "$general"
    adaptation=(--replay "$general=${adapt#replay=}")
    ;;
  lora) adaptation=(--lora-rank 8) ;;
esac

train=(
  fairseq-train "$data" --user-dir "$plugins"
  --task "$([[ $init ]] && echo domain_adaptation || echo sequence_distillation)"
  --save-dir "$out/checkpoints"
  ${init:+--finetune-from-model "$init/model.pt"}
  # model
  "${shape[@]}" --dropout "$dropout" ${adaptation[@]+"${adaptation[@]}"}
  # loss
  "${criterion[@]}" --label-smoothing 0.1
  # optimisation
  --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0
  --lr "$lr" --lr-scheduler "$schedule" --warmup-updates "$warmup"
  --max-tokens "$max_tokens" --update-freq "$update_frequency" --max-update "$updates"
  "${precision_flags[@]}" --seed "$seed"
  # validation and the choice of the best checkpoint
  --epoch-fraction "$epoch_fraction" --valid-beam "$valid_beam" --patience "$patience"
  --best-checkpoint-metric bleu_greedy --maximize-best-checkpoint-metric
  --no-epoch-checkpoints
  # log
  --log-format json --log-interval 50
  "${extra[@]}"
)
keep=(
  dad-keep-weights --checkpoint "$out/checkpoints/checkpoint_best.pt"
  --vocabulary "$data" --out "$out/kept"
)

main() {
  if [[ $dry_run ]]; then
    print_command "${train[@]}"
    print_command "${keep[@]}"
    exit
  fi

  mkdir -p "$out"
  if [[ ! -e $out/model.pt ]]; then
    print_command "${train[@]}" > "$out/command.txt"
    "${train[@]}"
    rm -rf "$out/kept"
    "${keep[@]}"
    # model.pt goes last: once it is there, all is there
    find "$out/kept" -mindepth 1 ! -name model.pt -exec mv -t "$out" {} +
    mv "$out/kept/model.pt" "$out/"
  fi
  rm -rf "$out/kept" "$out/checkpoints"
}

# on one line: bash has read all of this file by then, so editing it cannot disturb a run
main; exit
