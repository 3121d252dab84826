#!/usr/bin/env bash
# Train one model and leave its best checkpoint (or an average) with its vocabulary in OUT.
#
# Usage: train.sh --data DIR --out DIR --size NAME [--init MODEL] [options] [-- FAIRSEQ-TRAIN-FLAGS]
#
#   --data DIR               prepared folder: training bitext, dev set, vocabulary
#   --out DIR                folder to fill; run again after a stop, training goes on from there
#   --size NAME              architecture dad_NAME; see the table below
#   --init MODEL             model folder to start from (weights only): this is adapting
#   --from-model MODEL       the same where nothing is adapted: a training like any other, whose
#                            weights are not random at the start
#   --continue CHECKPOINT    go on with a training of fairseq-train: weights, optimiser, place in the
#                            schedule and in the data. --updates counts those before, too. What is
#                            checked: dad-hand-over --help
#   --from-teacher LAYERS=MODEL
#                            start from layers of a teacher of the same width: first or every-other
#   --loss NAME              plain (label-smoothed cross-entropy), word or selective (with
#                            --teacher-cache), sequence-risk (with --candidates)
#   --teacher-cache LIST     folders made by dad-cache-teacher, joined by colons
#   --candidates DIR         folder made by dad-candidates
#   --adapt NAME             how --init is adapted: plain, anchored[=WEIGHT], ewc[=WEIGHT] (with
#                            --fisher), replay=SHARE (with --general), lora
#   --fisher FILE            file made by dad-estimate-fisher for --init
#   --general DIR            prepared folder of general-domain bitext
#   --mixture LIST           prepared folders to train on, FOLDER=WEIGHT joined by commas, in place
#                            of that of --data, whose dev set stays
#   --mixture-temperature T  small folders of the mixture are shown more often; inf: all equally often
#   --valid-domains LIST     validate on these prepared folders, too: NAME=FOLDER joined by commas
#   --updates N              stop after so many updates
#   --lr X                   peak learning rate
#   --warmup N               updates until the peak; constant afterwards, or see --schedule
#   --schedule NAME          fixed (the paper's constant rate) or inverse_sqrt
#   --max-tokens N           target tokens in a batch
#   --update-frequency N     batches in an update; several GPUs share them, see below
#   --data-workers N         processes that make batches; 0: the training does it beside, which is
#                            enough on a CPU (a worker also takes up to 5 s to end after an epoch)
#   --epoch-fraction X       validate every X passes over the data
#   --patience N             stop after N validations without a better dev BLEU
#   --dropout X              dropout probability
#   --valid-beam N           beam of the decoding in validation
#   --average WHICH          keep the average of checkpoints in place of the best one: best:3 of those
#                            with the best BLEU, last:5 of the last (one for each validation)
#   --precision NAME         fp32, fp16, bf16, or auto (default), which is bf16 on a GPU that computes
#                            in it (compute capability 8.0 and above), fp16 on an older one, fp32 on
#                            a CPU. A training that goes on keeps what it began with
#   --seed N                 random seed
#   --dry-run                print the commands and do nothing
#
# The best checkpoint is that with the highest BLEU of greedily decoded, detokenised dev text.
#
# Sizes: layers of encoder + decoder, width, feed-forward width, heads; parameters with a joint
# vocabulary of 30,000 pieces, and how many of them are embeddings
#
#   large              6 + 6    512  2048    8     59.5 M   15.4 M
#   medium             3 + 3    512  2048    8     37.4 M   15.4 M
#   small              3 + 3    256  1024    8     13.2 M    7.7 M
#   tiny               1 + 1    256  1024    8      9.5 M    7.7 M
#   medium_12_1       12 + 1    512  2048    8     57.4 M   15.4 M
#   small_12_1        12 + 1    256  1024    8     18.2 M    7.7 M
#   tiny_6_1           6 + 1    256  1024    8     13.5 M    7.7 M
#   miniature_teacher  2 + 2    256  1024    4     11.4 M    7.7 M
#   miniature          1 + 1     96   384    4      3.1 M    2.9 M
#   l2_w128            2 + 2    128   512    2      4.8 M    3.8 M
#   l2_w256            2 + 2    256  1024    4     11.4 M    7.7 M
#   l2_w512            2 + 2    512  2048    8     30.1 M   15.4 M
#   l2_w768            2 + 2    768  3072   12     56.1 M   23.0 M
#   l4_w128            4 + 4    128   512    2      5.7 M    3.8 M
#   l4_w256            4 + 4    256  1024    4     15.1 M    7.7 M
#   l4_w512            4 + 4    512  2048    8     44.8 M   15.4 M
#   l4_w768            4 + 4    768  3072   12     89.2 M   23.0 M
#   l6_w128            6 + 6    128   512    2      6.6 M    3.8 M
#   l6_w256            6 + 6    256  1024    4     18.7 M    7.7 M
#   l6_w512            6 + 6    512  2048    8     59.5 M   15.4 M
#   l6_w768            6 + 6    768  3072   12    122.3 M   23.0 M
#   l8_w128            8 + 8    128   512    2      7.5 M    3.8 M
#   l8_w256            8 + 8    256  1024    4     22.4 M    7.7 M
#   l8_w512            8 + 8    512  2048    8     74.2 M   15.4 M
#   l8_w768            8 + 8    768  3072   12    155.4 M   23.0 M
#   l10_w128          10 + 10   128   512    2      8.5 M    3.8 M
#   l10_w256          10 + 10   256  1024    4     26.1 M    7.7 M
#   l10_w512          10 + 10   512  2048    8     88.9 M   15.4 M
#   l10_w768          10 + 10   768  3072   12    188.4 M   23.0 M
#   l12_w128          12 + 12   128   512    2      9.4 M    3.8 M
#   l12_w256          12 + 12   256  1024    4     29.8 M    7.7 M
#   l12_w512          12 + 12   512  2048    8    103.6 M   15.4 M
#   l12_w768          12 + 12   768  3072   12    221.5 M   23.0 M
#
# large to tiny: Gordon & Duh (2020). *_6_1, *_12_1: deep encoder and shallow decoder, fast on a CPU
# (Kasai et al. 2021). lDEPTH_wWIDTH: the grid of Turc et al. (2019). The miniatures are for
# demonstrations. All embeddings are tied. A flag after -- wins: -- --encoder-layers 4
#
# Watching is no setting, so it is asked for in the environment and redoes nothing:
#
#   DAD_TENSORBOARD=DIR      write for TensorBoard into DIR/MODEL, MODEL being --out
#   DAD_WANDB=PROJECT        send to this project of Weights & Biases, as run MODEL; with
#                            WANDB_MODE=offline nothing leaves this machine
#
# Nor is where it runs. All GPUs that CUDA_VISIBLE_DEVICES shows are used, one worker on each, and
# an update has as many tokens as on one: the workers share --max-tokens x --update-frequency.
#
#   DAD_LAUNCHER=COMMAND     start the workers so, for example on two machines under Slurm:
#                            srun torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d
#                            --rdzv-endpoint HOST:29500; recipes/slurm/README.md shows it whole

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
plugins=$(cd "$here/../../fairseq_plugins" && pwd)
source "$here/../command_line.sh"
source "$here/../machine.sh"

init='' updates=100000 lr=0.0002 warmup=1 schedule=fixed max_tokens=4096 update_frequency=1 data_workers=1
epoch_fraction=1 patience=10 dropout=0.1 valid_beam=5 precision=auto seed=1 dry_run='' average=''
data='' out='' size_name='' extra=()
mixture='' temperature='' valid_domains='' valid_subset=valid loss=plain teacher_cache='' candidates='' adapt=plain fisher='' general='' from_teacher=''
from_model='' continued='' starts=()
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; exit ;;
    --data) data=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --size) size_name=$2; shift 2 ;;
    --init) init=$2; shift 2 ;;
    --from-model) from_model=$2; shift 2 ;;
    --continue) continued=$2; shift 2 ;;
    --from-teacher) from_teacher=$2; shift 2 ;;
    --loss) loss=$2; shift 2 ;;
    --teacher-cache) teacher_cache=$2; shift 2 ;;
    --candidates) candidates=$2; shift 2 ;;
    --adapt) adapt=$2; shift 2 ;;
    --fisher) fisher=$2; shift 2 ;;
    --general) general=$2; shift 2 ;;
    --mixture) mixture=$2; shift 2 ;;
    --mixture-temperature) temperature=$2; shift 2 ;;
    --valid-domains) valid_domains=$2; shift 2 ;;
    --updates) updates=$2; shift 2 ;;
    --lr) lr=$2; shift 2 ;;
    --warmup) warmup=$2; shift 2 ;;
    --schedule) schedule=$2; shift 2 ;;
    --max-tokens) max_tokens=$2; shift 2 ;;
    --update-frequency) update_frequency=$2; shift 2 ;;
    --data-workers) data_workers=$2; shift 2 ;;
    --epoch-fraction) epoch_fraction=$2; shift 2 ;;
    --patience) patience=$2; shift 2 ;;
    --dropout) dropout=$2; shift 2 ;;
    --valid-beam) valid_beam=$2; shift 2 ;;
    --average) average=$2; shift 2 ;;
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
check_size --size "$size_name"
starts+=(${init:+--init} ${from_model:+--from-model} ${continued:+--continue})
starts+=(${from_teacher:+--from-teacher})
(( ${#starts[@]} < 2 )) || fail "${starts[*]} all say where the weights come from; keep one of them"

for domain in ${valid_domains//,/ }; do valid_subset+=,valid_${domain%%=*}; done

best=$out/checkpoints/checkpoint_best.pt
case $average in
  '') checkpoints_flags=(--no-epoch-checkpoints) kept=(--checkpoint "$best") ;;
  best:[1-9]*) checkpoints_flags=(--no-epoch-checkpoints --keep-best-checkpoints "${average#*:}") ;;
  last:[1-9]*) checkpoints_flags=(--keep-last-epochs "${average#*:}") ;;
  *) fail "--average is best:N or last:N, for example best:3, not '$average'" ;;
esac
[[ ! $average ]] || kept=(--checkpoints "$out/checkpoints" --average "$average")

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
[[ $adapt != anchored* && $adapt != ewc* || $loss == plain ]] \
  || fail "--adapt $adapt and --loss $loss are two losses for one training; leave one out"
adaptation=()
case $adapt in
  anchored*)
    weight=${adapt#anchored}
    weight=${weight#=}
    criterion=(--criterion anchored_adaptation --anchor-weight "${weight:-0.1}")
    ;;
  ewc*)
    require_option "$0" --fisher "$fisher"
    weight=${adapt#ewc}
    weight=${weight#=}
    criterion=(--criterion anchored_adaptation --ewc-weight "${weight:-1}" --fisher "$fisher")
    ;;
  replay=*)
    require_option "$0" --general "$general"
    adaptation=(--replay "$general=${adapt#replay=}")
    ;;
  lora) adaptation=(--lora-rank 8) ;;
esac

find_device
find_precision
find_workers

train=(
  fairseq-train "$data" --user-dir "$plugins"
  --task "$([[ $init ]] && echo domain_adaptation || echo sequence_distillation)"
  --save-dir "$out/checkpoints"
  ${init:+--finetune-from-model "$init/model.pt"}
  ${from_model:+--finetune-from-model "$from_model/model.pt"}
  ${from_teacher:+--init-from-teacher "$from_teacher"}
  ${valid_domains:+--valid-domains "$valid_domains" --valid-subset "$valid_subset"}
  ${mixture:+--mixture "$mixture"} ${temperature:+--mixture-temperature "$temperature"}
  # model
  --arch "dad_$size_name" --dropout "$dropout" ${adaptation[@]+"${adaptation[@]}"}
  # loss
  "${criterion[@]}" --label-smoothing 0.1
  # optimisation
  --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0
  --lr "$lr" --lr-scheduler "$schedule" --warmup-updates "$warmup"
  --max-tokens "$max_tokens" --update-freq "$update_frequency" --max-update "$updates"
  --num-workers "$data_workers"
  ${precision_flag:+"$precision_flag"} --seed "$seed"
  # with several GPUs the first worker would send a type that PyTorch refuses
  --load-checkpoint-on-all-dp-ranks
  # validation and the choice of the best checkpoint
  --epoch-fraction "$epoch_fraction" --valid-beam "$valid_beam" --patience "$patience"
  --best-checkpoint-metric bleu_greedy --maximize-best-checkpoint-metric
  "${checkpoints_flags[@]}"
  # log
  --log-format json --log-interval 50
  "${extra[@]}"
)
model=${out%.part}  # dad-stage gives the folder its name at the end
watching=()  # what sees the training and does not shape it; not in command.txt either
if [[ ${DAD_TENSORBOARD-} ]]; then
  watching+=(--tensorboard-logdir "$DAD_TENSORBOARD/$model")
fi
if [[ ${DAD_WANDB-} ]]; then
  watching+=(--wandb-project "$DAD_WANDB")
  export WANDB_NAME=${WANDB_NAME:-$model}
fi
working=("${train[@]}" ${watching[@]+"${watching[@]}"})
if (( ${#launcher[@]} )); then
  working=(
    "${launcher[@]}" --no-python "$here/worker.sh" "$workers"
    "${working[@]}" --max-tokens "$own_tokens" --update-freq "$own_frequency"
  )
fi
last=$out/checkpoints/checkpoint_last.pt
hand_over=(dad-hand-over --continue "$continued" --out "$last" -- "${train[@]:1}")
keep=(
  dad-keep-weights "${kept[@]}" --vocabulary "$data" --out "$out/kept"
)

importable() {  # MODULE...: whether Python finds one of them
  python -c 'import importlib.util, sys; sys.exit(not any(map(importlib.util.find_spec, sys.argv[1:])))' "$@"
}

prepare_watching() {  # without the package fairseq would go on, and say so only in its log
  if [[ ${DAD_TENSORBOARD-} ]]; then
    importable tensorboard tensorboardX || fail "DAD_TENSORBOARD needs a package: pip install tensorboard"
    # curves of an earlier training would lie over those of one that begins afresh
    [[ -e $last || ! -d $DAD_TENSORBOARD/$model ]] \
      || find "$DAD_TENSORBOARD/$model" -name 'events.out.tfevents.*' -delete
  fi
  if [[ ${DAD_WANDB-} ]]; then
    importable wandb || fail "DAD_WANDB needs a package: pip install wandb"
  fi
}

main() {
  if [[ $dry_run ]]; then
    [[ ! $note ]] || echo "# precision: $note"
    [[ ! $continued ]] || print_command "${hand_over[@]}"
    print_command "${working[@]}"
    print_command "${keep[@]}"
    exit
  fi

  mkdir -p "$out"
  if [[ ! -e $out/model.pt ]]; then
    prepare_watching
    # as one worker would have to be called: how many there were is no setting
    {
      print_command "${train[@]}"
      [[ ! $note ]] || echo "# precision: $note"
    } > "$out/command.txt.part"
    mv "$out/command.txt.part" "$out/command.txt"
    # once: after a stop training goes on from where it was itself
    [[ ! $continued || -e $last ]] || "${hand_over[@]}"
    "${working[@]}"
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
