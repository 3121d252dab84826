# How a training uses this machine, or several: precision, workers, each worker's share of a batch.
#
# Reads the options of train.sh, DAD_LAUNCHER and, through data_prep.pipeline.device, CUDA_VISIBLE_DEVICES.

shortest_batch=1024  # tokens; the longest sentence that our models read must fit

say() { echo "$(basename "$0"): $1" >&2; }  # dad-stage shows lines that begin so

asked_for() {  # FLAG...: whether one of them stands after --
  local flag word
  for flag in "$@"; do
    for word in ${extra[@]+"${extra[@]}"}; do
      [[ $word != "$flag" && $word != "$flag="* ]] || return 0
    done
  done
  return 1
}

find_device() {  # sets gpus, device_precision and why_device
  gpus=0 device_precision=fp32 why_device="since --cpu is asked for"
  # nothing need be installed for those who only look
  [[ ! $dry_run ]] && ! asked_for --cpu || return 0
  local found
  found=$(python -m data_prep.pipeline.device) || exit 1
  IFS=$'\t' read -r gpus device_precision why_device <<< "$found"
  why_device="since $why_device"
}

find_precision() {  # sets precision_flag, and note: what we chose and why, for the screen and command.txt
  precision_flag='' note=''
  if asked_for --fp16 --bf16; then return; fi
  if [[ $precision == auto && $dry_run ]]; then
    precision=fp32 note="bf16, fp16 or fp32, as the device has it"
  elif [[ $precision == auto && -e $out/checkpoints/checkpoint_last.pt && -e $out/command.txt ]]; then
    begun_precision
  elif [[ $precision == auto ]]; then
    precision=$device_precision note="$device_precision, $why_device"
    say "precision $note"
  fi
  case $precision in
    fp32) ;;
    fp16 | bf16) precision_flag=--$precision ;;
    *) fail "--precision is auto, fp32, fp16 or bf16, not '$precision'" ;;
  esac
}

begun_precision() {  # of a training that goes on: another could not read the optimiser's state
  precision=fp32
  [[ ! $(head -n 1 "$out/command.txt") =~ " --"(fp16|bf16)" " ]] || precision=${BASH_REMATCH[1]}
  note=$(sed -n 's/^# precision: //p' "$out/command.txt")
  [[ $precision == fp32 ]] || (( gpus )) || fail "\
this training began in $precision on a GPU, and there is none here. Go on where there is one, or begin \
afresh: rm -r $out"
  say "precision $precision, with which this training began"
}

find_workers() {  # sets launcher, a command, and with it workers, own_tokens and own_frequency
  launcher=() workers=1
  if [[ ${DAD_LAUNCHER-} ]]; then
    read -r -a launcher <<< "$DAD_LAUNCHER"
    count_workers "${launcher[@]}"
    share_batch || fail "\
an update has $max_tokens x $update_frequency tokens, which gives $workers workers $own_tokens each: \
longer sentences would be lost. Take fewer workers, or more --max-tokens"
  elif (( gpus > 1 )); then
    workers=$gpus
    until share_batch; do workers=$(( workers - 1 )); done
    launcher=(torchrun --standalone --nproc-per-node "$workers")
  else
    return 0
  fi
  ! asked_for --max-tokens --update-freq --batch-size --distributed-world-size || fail "\
$workers workers share --max-tokens and --update-frequency of train.sh; do not set fairseq's own after --"
  say "$workers workers with batches of $own_tokens tokens, $own_frequency in an update of each"
}

count_workers() {  # LAUNCHER-WORD...: sets workers from --nnodes and --nproc-per-node, each 1 if not given
  local words=("${@//_/-}") nodes=1 processes=1 place word
  for place in "${!words[@]}"; do
    word=${words[place]}
    case $word in
      --nnodes | --nproc-per-node) word+="=${words[place + 1]-}" ;;
    esac
    case $word in
      --nnodes=*) nodes=${word#*=} ;;
      --nproc-per-node=*) processes=${word#*=} ;;
    esac
  done
  [[ $nodes-$processes =~ ^[1-9][0-9]*-[1-9][0-9]*$ ]] || fail "\
DAD_LAUNCHER says --nnodes $nodes and --nproc-per-node $processes; the batch is divided by their \
product, so write numbers"
  workers=$(( nodes * processes ))
}

share_batch() {  # sets own_tokens and own_frequency so that the workers' product is that of one
  own_frequency=$(( (update_frequency + workers - 1) / workers ))
  own_tokens=$(( max_tokens * update_frequency / (workers * own_frequency) ))
  (( own_tokens >= shortest_batch || own_tokens == max_tokens ))
}
