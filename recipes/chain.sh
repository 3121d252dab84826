#!/usr/bin/env bash
# Distil, adapt, distil: from bitext to scored in-domain students (Gordon & Duh 2020).
#
# Usage: run.sh --general PLACE --domain NAME=PLACE --work DIR [options] [-- FLAGS OF stages/train.sh]
#
#   --general PLACE          general-domain bitext. PLACE is one of
#                            a folder with train.de, train.en, dev.de ... (plain, .gz or .zst, one
#                            sentence a line, not tokenised); a dev or test set that is not there
#                            is taken out of train, by document where train.documents names them
#                            catalogue         the public sets of this pair and domain
#                            catalogue:ID,ID   some of them; python -m data_prep.fetch --list
#   --domain NAME=PLACE      in-domain bitext, alike; may be repeated. With monolingual.de in the
#                            folder, source text without translations, teachers translate that too
#                            for the students that learn of a teacher in the domain
#   --work DIR               folder of the run; run again to go on or to change settings
#   --catalogue FILE         your own catalogue, in place of ours (python -m data_prep.fetch --help)
#   --cleaning FILE          cleaning steps, one a line, in place of the pair's own
#                            (python -m data_prep.clean --print-steps)
#   --size NAME              student: tiny, small, medium, tiny_6_1 ... (or miniature, for
#                            demonstrations); recipes/stages/train.sh --help has all, with numbers
#   --teacher-size NAME      teacher: large (miniature_teacher when the student is a miniature)
#   --configuration LIST     which of the nine students, for example 9 or 1,4,7,9
#   --vocabulary-kind NAME   unigram or bpe (SentencePiece), or subword-nmt
#   --vocabulary-size N      pieces of the joint vocabulary (fewer for little text)
#   --precision NAME         fp32, or fp16 or bf16 on a GPU
#   --targets NAME           what students learn of a teacher: best (default), best-of-8-chrf,
#                            mbr-32-chrf and the like; see recipes/stages/distil.sh --help
#   --filter STEP            reject distilled pairs, for example repetition or copy; may be
#                            repeated (dad-select --list-steps)
#   --rejected WORD          drop what a filter rejects, or take its reference
#   --loss LIST              how students learn of a teacher, one row in the table for each:
#                            plain          its translations alone (default)
#                            word           its distribution for every word too
#                            selective      the same for the words that are hardest for the student
#                            sequence-risk  plain, then minimum-risk training on its n-best
#   --student-init NAME      weights of the general student at the start: random (default), or
#                            layers of the teacher, which must have its width: first, every-other
#   --adapt NAME             how teachers and students are adapted to a domain:
#                            plain          in-domain bitext alone (default)
#                            anchored       held near the distribution of the general model;
#                                           anchored=0.2 says how much of the loss that is
#                            ewc            held near its weights (elastic weight consolidation),
#                                           ewc=10 ten times as fast
#                            replay=SHARE   with general bitext as SHARE of the pairs, as in replay=0.25
#                            lora           in a low-rank update of the weights
#   --tensorboard            write curves of every training to WORK/tensorboard/MODEL
#                            (tensorboard --logdir WORK/tensorboard; pip install tensorboard)
#   --wandb PROJECT          send them to Weights & Biases (pip install wandb);
#                            WANDB_MODE=offline keeps them on this machine
#   --jobs N                 run up to N stages side by side where they do not depend on each other
#   --updates N              at most N updates in every training, for a trial
#   --lines N                at most N training pairs of every corpus, for a trial
#   --stage N                begin with stage N
#   --stop-stage N           end with stage N
#   --dry-run                print every command and do nothing
#   --help                   this text
#   -- FLAG...               for every training, in place of what the config says; for example
#                            -- --lr 0.0005 --max-tokens 8192 (see recipes/stages/train.sh --help)
#
# Configurations: what the in-domain student starts from, and what it is adapted to
#
#   in-domain target                   random   general student   general student
#                                      start    on references     on teacher output
#   references                            1            4                 7
#   output of a teacher trained on
#   the domain alone                      2            5                 8
#   output of the adapted teacher         3            6                 9 (distil, adapt, distil)
#
# Stages
#
#   1 corpora   2 vocabulary   3 prepared data   4 teacher   5 distilled data   6 student
#   7 teacher, in domain   8 distilled data, in domain   9 students, in domain
#   10 scores   11 report   12 shipped
#
# A stage that is done is skipped as long as its settings and inputs are the same; one
# that was stopped goes on where it was. WORK/report/NAME/report.html holds the result,
# WORK/shipped/NAME/ the students, ready for use. dad-report --watch --work WORK shows a run
# while it goes on.

set -euo pipefail
recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$recipes/command_line.sh"
source "$recipes/grid.sh"
source "$recipes/stage.sh"
source "$recipes/plan.sh"

read_options() {  # sets the variables named after the options
  given=("$0" "$@") started_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  config='' general='' domains=() work='' catalogue='' cleaning='' vocabulary_kind='' size='' teacher_size='' configurations='' updates=''
  targets=best filters=() rejected=drop loss=plain adapt=plain student_init=random
  lines='' precision='' chosen_jobs='' chosen_vocabulary_size='' first_stage=1 last_stage=12 dry_run='' train_flags=()
  while (( $# )); do
    case $1 in
      --help|-h) script_help "$0"; exit ;;
      --dry-run) dry_run=1; shift; continue ;;
      --tensorboard) export DAD_TENSORBOARD=tensorboard; shift; continue ;;
      --) train_flags=("${@:2}"); break ;;
    esac
    (( $# >= 2 )) || { [[ $1 == --* ]] && fail "$1 needs a value"; unknown_option "$0" "$1"; }
    case $1 in
      --config) config=$2 ;;
      --general) general=$2 ;;
      --domain) domains+=("$2") ;;
      --work) work=$2 ;;
      --catalogue) catalogue=$2 ;;
      --cleaning) cleaning=$2 ;;
      --vocabulary-kind) vocabulary_kind=$2 ;;
      --size) size=$2 ;;
      --teacher-size) teacher_size=$2 ;;
      --configuration) configurations=$2 ;;
      --vocabulary-size) chosen_vocabulary_size=$2 ;;
      --jobs) chosen_jobs=$2 ;;
      --precision) precision=$2 ;;
      --targets) targets=$2 ;;
      --filter) filters+=(--filter "$2") ;;
      --rejected) rejected=$2 ;;
      --loss) loss=$2 ;;
      --adapt) adapt=$2 ;;
      --student-init) student_init=$2 ;;
      --updates) updates=$2 ;;
      --lines) lines=$2 ;;
      --wandb) export DAD_WANDB=$2 ;;
      --stage) first_stage=$2 ;;
      --stop-stage) last_stage=$2 ;;
      *) unknown_option "$0" "$1" ;;
    esac
    shift 2
  done
}

check_options() {  # and find what they leave open in the config
  require_option "$0" --config "$config"
  require_option "$0" --general "$general"
  (( ${#domains[@]} )) || fail "--domain NAME=PLACE is missing; $(basename "$0") --help explains it"
  require_option "$0" --work "$work"
  for number in "$first_stage" "$last_stage"; do
    [[ $number =~ ^([1-9]|1[012])$ ]] || fail "a stage is a number from 1 to 12, not '$number'"
  done
  for number in $updates $lines $chosen_jobs $chosen_vocabulary_size; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "expected a number above 0, not '$number'"
  done

  source "$config"
  jobs_at_once=${chosen_jobs:-$jobs_at_once}
  size=${size:-$student_size}
  if [[ ! $teacher_size ]]; then
    [[ $size == miniature ]] && teacher_size=miniature_teacher || teacher_size=$default_teacher_size
  fi
  IFS=', ' read -r -a configurations <<< "${configurations:-9}"
  for number in "${configurations[@]}"; do
    [[ $number =~ ^[1-9]$ ]] || fail "a configuration is a number from 1 to 9, not '$number'"
  done
  case $targets in
    best) ;;
    best-of-*) targets_of "$targets" best-of ;;
    mbr-*) targets_of "$targets" mbr ;;
    *) fail "--targets is best, best-of-N-METRIC or mbr-N-METRIC, not '$targets'" ;;
  esac
  [[ $rejected == drop || $rejected == reference ]] \
    || fail "--rejected is drop or reference, not '$rejected'"
  IFS=', ' read -r -a losses <<< "$loss"
  for loss in "${losses[@]}"; do
    [[ $loss =~ ^(plain|word|selective|sequence-risk)$ ]] \
      || fail "--loss is plain, word, selective or sequence-risk, or several with commas, not '$loss'"
  done
  check_adapt "$adapt"
  [[ $student_init =~ ^(random|first|every-other)$ ]] \
    || fail "--student-init is random, first or every-other, not '$student_init'"
  if [[ $adapt == anchored* || $adapt == ewc* ]] && [[ ${losses[*]} != plain ]]; then
    fail "--adapt $adapt and --loss ${losses[*]} are two losses for one training; leave one out"
  fi
  find_variants
  check_size --size "$size"
  check_size --teacher-size "$teacher_size"
  [[ ! $vocabulary_kind || $vocabulary_kind =~ ^(unigram|bpe|subword-nmt)$ ]] \
    || fail "--vocabulary-kind is unigram, bpe or subword-nmt, not '$vocabulary_kind'"
  for file in "$catalogue" "$cleaning"; do
    [[ ! $file || -f $file ]] || fail "there is no file $file"
  done
  catalogue=${catalogue:+$(realpath "$catalogue")} cleaning=${cleaning:+$(realpath "$cleaning")}
  declare -gA raw_folder=() catalogue_sets=()
  find_corpus --general general "$general"
  names=()
  for entry in "${domains[@]}"; do
    [[ $entry =~ ^[A-Za-z0-9_-]+=. ]] || fail "--domain takes NAME=PLACE, NAME of letters, digits, - and _, not '$entry'"
    [[ ${entry%%=*} != general ]] || fail "a domain cannot be called general; that is the other corpus"
    find_corpus --domain "${entry%%=*}" "${entry#*=}"
    names+=("${entry%%=*}")
  done
}

find_corpus() {  # OPTION NAME PLACE: sets raw_folder[NAME], and catalogue_sets[NAME] if it is to be fetched
  case $3 in
    catalogue) catalogue_sets[$2]="--domain $2" ;;
    catalogue:?*) catalogue_sets[$2]="--id ${3#catalogue:}"; catalogue_sets[$2]=${catalogue_sets[$2]//,/ --id } ;;
    *)
      [[ -d $3 ]] || fail "$1: there is no folder $3"
      raw_folder[$2]=$(cd "$3" && pwd)
      return
      ;;
  esac
  raw_folder[$2]=corpora/$2/raw
}

enter_work() {  # stages are written with paths inside the run's folder, which can then be moved
  export PATH=$recipes/stages:$PATH
  if [[ ! $dry_run ]]; then
    command -v dad-stage > /dev/null || fail "the environment is not active: source recipes/bootstrap.sh"
    # a wrong step is told now, not after the teacher's training
    if (( ${#filters[@]} )); then
      dad-select --check-steps "${filters[@]/#--filter/--step}" || exit 1
    fi
    mkdir -p "$work" || fail "cannot make the folder $work"
    cd "$work"
  fi
}

fetch() {  # NAME
  stage 1 "corpora" --out "${raw_folder[$1]}" \
    ${catalogue:+--in "$catalogue"} \
    -- python -m data_prep.fetch --pair "$source_lang-$target_lang" ${catalogue_sets[$1]} \
    ${catalogue:+--catalogue "$catalogue"} --out '{out}'
}

hint() {  # for a person at a terminal
  [[ ! $dry_run && -t 2 ]] || return 0
  printf 'Watch this run from another terminal: source %q; dad-report --work %q --watch\n' \
    "$recipes/bootstrap.sh" "$PWD" >&2
}

has_text() {  # FOLDER SPLIT
  [[ -e $1/$2.$source_lang || -e $1/$2.$source_lang.gz || -e $1/$2.$source_lang.zst ]]
}
has_held_out() { has_text "$1" dev && has_text "$1" test; }  # FOLDER, when it has been fetched

fetch_all() {
  local name
  for name in general "${names[@]}"; do
    [[ ! ${catalogue_sets[$name]-} ]] || fetch "$name"
  done
}

split() {  # NAME
  stage 1 "corpora" --in "${raw_folder[$1]}" --out "corpora/$1/split" \
    -- python -m data_prep.split --in "${raw_folder[$1]}" "${languages[@]}" --out '{out}'
}

text_source() {  # NAME: prints the folder that clean reads
  if has_held_out "${raw_folder[$1]}"; then echo "${raw_folder[$1]}"; else echo "corpora/$1/split"; fi
}

held_out_files() {  # FOLDER: its dev and test sets; those of a split are packed like its train
  local file packing=''
  if [[ $1 == corpora/*/split ]]; then
    file=$(cd "${raw_folder[$(basename "$(dirname "$1")")]}" && ls -d train.* 2> /dev/null | head -n 1)
    [[ $file == *.gz || $file == *.zst ]] && packing=.${file##*.}
    printf '%s\n' "$1"/{dev,test}.{"$source_lang","$target_lang"}"$packing"
    return
  fi
  for file in "$1"/{dev,test}.{"$source_lang","$target_lang"}{,.gz,.zst}; do
    [[ ! -e $file ]] || echo "$file"
  done
}

clean() {  # NAME
  local raw
  raw=$(text_source "$1")
  stage 1 "corpora" --in "$raw" "${held_out_inputs[@]}" ${cleaning:+--in "$cleaning"} \
    --out "corpora/$1/text" \
    -- python -m data_prep.clean --in "$raw" "${languages[@]}" "${held_out[@]}" \
    ${cleaning:+--steps "$cleaning"} ${lines:+--lines "$lines"} --out '{out}'
}

sources() {  # NAME: its training text and what it has without translations
  stage 1 "corpora" --in "${raw_folder[$1]}" --in "corpora/$1/text" "${held_out_inputs[@]}" \
    ${cleaning:+--in "$cleaning"} --out "$(sources_of "$1")" \
    -- python -m data_prep.monolingual --in "${raw_folder[$1]}" --text "corpora/$1/text" \
    "${languages[@]}" "${held_out[@]}" ${cleaning:+--steps "$cleaning"} \
    ${lines:+--lines "$lines"} --out '{out}'
}

train() {  # NUMBER TITLE OUT DATA [dad-stage flags] -- TRAIN.SH-FLAGS
  local number=$1 title=$2 out=$3 data=$4 flags=()
  shift 4
  while [[ $1 != -- ]]; do flags+=("$1"); shift; done
  stage "$number" "$title" --resume --screen train --in "$data" "${flags[@]}" --out "$out" \
    -- train.sh --data "$data" --out '{out}' "${training[@]}" "${@:2}" \
    ${updates:+--updates "$updates"} ${precision:+--precision "$precision"} \
    ${train_flags[@]+"${train_flags[@]}"}
}

has_monolingual() {  # DOMAIN: whether it has source text without translations
  [[ $1 != general ]] || return 1
  local files=${raw_folder[$1]}/monolingual
  compgen -G "$files*.$source_lang" > /dev/null || compgen -G "$files*.$source_lang.*" > /dev/null
}
sources_of() {  # DOMAIN: text folder with all that a teacher translates for students
  if has_monolingual "$1"; then echo "corpora/$1/sources"; else echo "corpora/$1/text"; fi
}

distil() {  # NUMBER TITLE DOMAIN TEACHER [DISTIL.SH-FLAGS]
  local text
  text=$(sources_of "$3")
  stage "$1" "$2" --resume --in "teacher/$4" --in "$text" --in vocabulary \
    --out "distilled/$3/$4" \
    -- distil.sh --teacher "teacher/$4" --text "$text" --vocabulary vocabulary \
    "${languages[@]}" --beam "$teacher_beam" --out '{out}' "${selection[@]}" "${@:5}" \
    ${teacher_compute_type:+-- --compute-type "$teacher_compute_type"}
}

cache() {  # NUMBER TITLE DATA TEACHER: the teacher's distribution over a prepared folder
  stage "$1" "$2" --resume --in "teacher/$4" --in "$3" --out "$(cache_of "$3")" \
    -- dad-cache-teacher --teacher "teacher/$4" --data "$3" --out '{out}/distribution'
}
cache_of() { echo "cached/${1%/prepared}"; }

candidates() {  # NUMBER TITLE DOMAIN TEACHER: the teacher's n-best with their costs
  local text
  text=$(sources_of "$3")
  stage "$1" "$2" --in "distilled/$3/$4" --in "$text" --out "candidates/$3/$4" \
    -- dad-candidates --nbest "distilled/$3/$4/decoded/train.$target_lang.nbest" \
    --source "$text/train.$source_lang" --references "$text/train.$target_lang" \
    --data "distilled/$3/$4/prepared" --out '{out}'
}

learn() {  # LOSS DATA...: adds to the flags of train.sh and dad-stage how DATA is learnt
  local loss=$1 data caches=() list
  shift
  [[ $loss != plain ]] || return 0
  learning+=(--loss "$loss")
  if [[ $loss == sequence-risk ]]; then
    data=${1%/prepared}
    learning+=(--candidates "candidates/${data#distilled/}")
    learning_inputs+=(--in "candidates/${data#distilled/}")
    return
  fi
  for data in "$@"; do
    caches+=("$(cache_of "$data")/distribution")
    learning_inputs+=(--in "$(cache_of "$data")")
  done
  printf -v list ':%s' "${caches[@]}"
  learning+=(--teacher-cache "${list#:}")
}

adapt() {  # INIT GENERAL-DATA: adds to the flags of train.sh and dad-stage how INIT is adapted
  learning+=(--init "$1") learning_inputs+=(--in "$1")
  [[ $adapt == plain ]] || learning+=(--adapt "$adapt")
  case $adapt in
    replay=*) learning+=(--general "$2") learning_inputs+=(--in "$2") ;;
    ewc*) learning+=(--fisher "fisher/$1/fisher.pt") learning_inputs+=(--in "fisher/$1") ;;
  esac
}

fisher() {  # NUMBER TITLE MODEL: what matters in its weights for the general domain
  [[ $adapt == ewc* ]] || return 0
  stage "$1" "$2" --in "$3" --in corpora/general/prepared --out "fisher/$3" \
    -- dad-estimate-fisher --model "$3" --data corpora/general/prepared --out '{out}/fisher.pt'
}

distil_domain() {  # DOMAIN TEACHER: and what the losses need of that teacher
  local title="distilled data, in domain" n_best=()
  if any_loss sequence-risk; then n_best=(--n-best "$risk_candidates"); fi
  distil 8 "$title" "$1" "$2" ${n_best[@]+"${n_best[@]}"}
  if learns_distribution; then cache 8 "$title" "distilled/$1/$2/prepared" "$2"; fi
  if any_loss sequence-risk; then candidates 8 "$title" "$1" "$2"; fi
}

student() {  # NUMBER LOSS DOMAIN
  local data general start out
  data=$(target_data "$1" "$3")
  out=student/$size/$(with_loss "$1" "$2")/$3
  start=$(start_of "$1")
  learning=() learning_inputs=()
  if [[ $2 == sequence-risk ]]; then
    learning=(--init "student/$size/$1/$3") learning_inputs=(--in "student/$size/$1/$3")
    learn "$2" "$data"
  else
    [[ $start == references ]] && general=corpora/general/prepared || general=$distilled
    if [[ $start == distilled ]]; then start=$(with_loss distilled "$2"); fi
    if [[ $start != random ]]; then adapt "student/$size/$start/general" "$general"; fi
    if [[ $(target_of "$1") != references ]]; then
      [[ $adapt == replay=* && $start != random ]] || general=''
      learn "$2" "$data" $general
    fi
  fi
  train 9 "students, in domain" "$out" "$data" ${learning_inputs[@]+"${learning_inputs[@]}"} \
    -- --size "$size" ${learning[@]+"${learning[@]}"}
}

score() {  # MODEL NAME LABEL DOMAIN
  local texts=() corpus split lang
  for corpus in "$4" general; do
    for split in train test; do
      for lang in "$source_lang" "$target_lang"; do texts+=(--in "corpora/$corpus/text/$split.$lang"); done
    done
  done
  stage 10 "scores" --in "$1" --out "exported/$1" \
    -- dad-export --model "$1" --compute-type "$export_type" --out '{out}'
  stage 10 "scores" --in "exported/$1" "${texts[@]}" --out "scores/$4/$1" \
    -- dad-evaluate --model "exported/$1" --name "$2" --label "$3" --beam "$score_beam" \
    --test "$4=corpora/$4/text" --test general=corpora/general/text \
    --train "$4=corpora/$4/text" --train general=corpora/general/text --out '{out}'
}

ship() {  # CONFIGURATION DOMAIN: a student with all that its users need
  local model=student/$size/$1/$2 records=() corpus lang
  for lang in "$source_lang" "$target_lang"; do records+=(--in "corpora/$2/text/dev.$lang"); done
  for corpus in general "$2"; do records+=(--in "corpora/$corpus/text/ledger.json"); done
  stage 12 "shipped" --in "$model" --in "scores/$2/$model" --in "speed/$2" "${records[@]}" \
    --out "shipped/$2/$size/$1" \
    -- dad-export --model "$model" --compute-type "$export_type" --domain "$2" \
    --dev "corpora/$2/text" --beam "$score_beam" --max-loss "$export_max_loss" \
    --text corpora/general/text --text "corpora/$2/text" \
    --scores "scores/$2/$model" --speed "speed/$2/speed.json" --safetensors --out '{out}'
}

chain() {
  languages=(--source-lang "$source_lang" --target-lang "$target_lang")
  # in the words of a stage only where it is not the default, so that old runs stay valid
  selection=()
  [[ $targets == best ]] || selection+=(--targets "$targets")
  selection+=(${filters[@]+"${filters[@]}"})
  [[ $rejected == drop ]] || selection+=(--rejected "$rejected")

  # 1: text
  fetch_all
  for name in general "${names[@]}"; do
    has_held_out "${raw_folder[$name]}" || split "$name"
  done
  # no training line of any corpus may stand in the dev or test set of any other
  held_out=() held_out_inputs=()
  while read -r folder; do
    held_out+=(--held-out "$folder")
    for file in $(held_out_files "$folder"); do held_out_inputs+=(--in "$file"); done
  done < <(for name in general "${names[@]}"; do text_source "$name"; done | sort)
  for name in general "${names[@]}"; do clean "$name"; done
  for name in "${names[@]}"; do
    if has_monolingual "$name"; then sources "$name"; fi
  done

  local texts=() text_inputs=() text
  for name in general "${names[@]}"; do
    text=$(sources_of "$name")
    texts+=("$text") text_inputs+=(--in "$text")
  done
  stage 1 "corpora" "${text_inputs[@]}" --out corpora/overlap \
    -- python -m data_prep.overlap "${languages[@]}" --out '{out}' "${texts[@]}"

  # 2: one vocabulary for all models, from general-domain text
  stage 2 "vocabulary" --in "corpora/general/text" --out vocabulary \
    -- python -m data_prep.vocabulary --train corpora/general/text "${languages[@]}" \
    --size "${chosen_vocabulary_size:-$vocabulary_size}" ${vocabulary_kind:+--kind "$vocabulary_kind"} \
    --out '{out}'

  # 3
  for name in general "${names[@]}"; do
    stage 3 "prepared data" --in "corpora/$name/text" --in vocabulary --out "corpora/$name/prepared" \
      -- python -m data_prep.binarise --train "corpora/$name/text" --vocabulary vocabulary --out '{out}'
  done

  # 4
  training=("${teacher_training[@]}")
  train 4 "teacher" teacher/general corpora/general/prepared -- --size "$teacher_size"

  # 5 and 6: what the general students learn from
  training=("${student_training[@]}")
  distilled=distilled/general/general/prepared
  starting=()
  [[ $student_init == random ]] || starting=(--from-teacher "$student_init=teacher/general")
  if needs start distilled; then
    distil 5 "distilled data" general general
    if learns_distribution; then cache 5 "distilled data" "$distilled" general; fi
    for loss in plain word selective; do
      starts_with_loss "$loss" || continue
      learning=() learning_inputs=()
      learn "$loss" "$distilled"
      train 6 "student" "student/$size/$(with_loss distilled "$loss")/general" "$distilled" \
        ${starting[@]+--in teacher/general} ${learning_inputs[@]+"${learning_inputs[@]}"} \
        -- --size "$size" ${starting[@]+"${starting[@]}"} ${learning[@]+"${learning[@]}"}
    done
  fi
  if needs start references; then
    train 6 "student" "student/$size/references/general" corpora/general/prepared \
      ${starting[@]+--in teacher/general} -- --size "$size" ${starting[@]+"${starting[@]}"}
  fi
  for start in references distilled; do
    if needs start "$start"; then fisher 6 "student" "student/$size/$start/general"; fi
  done
  if [[ $adapt == replay=* ]] && needs start references && learns_distribution; then
    cache 6 "student" corpora/general/prepared general
  fi

  for name in "${names[@]}"; do
    # 7 and 8
    training=("${teacher_adaptation[@]}")
    learning=() learning_inputs=()
    fisher 7 "teacher, in domain" teacher/general
    adapt teacher/general corpora/general/prepared
    train 7 "teacher, in domain" "teacher/$name" "corpora/$name/prepared" "${learning_inputs[@]}" \
      -- --size "$teacher_size" "${learning[@]}"
    if needs target adapted; then
      distil_domain "$name" "$name"
    fi
    if needs target scratch; then
      train 7 "teacher, in domain" "teacher/$name-scratch" "corpora/$name/prepared" \
        -- --size "$teacher_size"
      distil_domain "$name" "$name-scratch"
    fi

    # 9: the students; equal tries for all
    training=("${student_adaptation[@]}")
    for variant in "${variants[@]}"; do
      [[ $variant == *" sequence-risk" ]] || student ${variant% *} ${variant#* } "$name"
    done
    training=("${student_risk[@]}")
    for variant in "${variants[@]}"; do
      [[ $variant != *" sequence-risk" ]] || student ${variant% *} ${variant#* } "$name"
    done

    # 10
    rows=() models=() named_rows='|'
    row() {  # MODEL NAME LABEL
      in_table "$name.rows" "$2" "$3" "$1"
      score "$1" "$2" "$3" "$name"
      rows+=("scores/$name/$1") named_rows+="$2|"
      models+=("exported/$1")
    }
    row teacher/general "teacher" "general references"
    row "teacher/$name" "adapted teacher" "general references, then $name references"
    if needs start references; then
      row "student/$size/references/general" "general student R" "general references"
    fi
    for loss in plain word selective; do
      starts_with_loss "$loss" || continue
      row "student/$size/$(with_loss distilled "$loss")/general" \
        "$(named "general student D" "$loss")" "general teacher's output$(in_words "$loss")"
    done
    # students that learn of a teacher may see more text than those that learn from references
    more=''
    if has_monolingual "$name"; then more=' + monolingual'; fi
    for variant in "${variants[@]}"; do
      number=${variant% *} loss=${variant#* }
      case $(start_of "$number") in
        random) label='' ;;
        references) label='general references, then ' ;;
        distilled) label="general teacher's output$(in_words "$(loss_of_start "$loss")"), then " ;;
      esac
      case $(target_of "$number") in
        references) label+="$name references" ;;
        scratch) label+="$name-only teacher's output$more$(in_words "$loss")" ;;
        adapted) label+="adapted teacher's output$more$(in_words "$loss")" ;;
      esac
      row "student/$size/$(with_loss "$number" "$loss")/$name" "$(named "$number" "$loss")" "$label"
    done

    # 11
    speed_inputs=() report_inputs=()
    for model in "${models[@]}"; do speed_inputs+=(--in "$model"); done
    for folder in "${rows[@]}"; do report_inputs+=(--in "$folder"); done
    compare() {  # NEW OLD WORDS: if both are rows
      if [[ $named_rows == *"|$1|"* && $named_rows == *"|$2|"* ]]; then
        in_table "$name.steps" "$1" "$2" "$3"
      fi
    }
    compare "adapted teacher" teacher "adapting the teacher"
    compare 4 1 "starting from a general student"
    compare 7 4 "distilling the general data"
    compare 9 7 "distilling again, with the adapted teacher"
    for variant in "${variants[@]}"; do
      number=${variant% *} loss=${variant#* }
      if [[ $loss != plain ]]; then
        compare "$(named "$number" "$loss")" "$number" "$(step_of "$loss"), configuration $number"
      fi
    done
    for variant in "${variants[@]}"; do
      number=${variant% *} loss=${variant#* }
      case $(start_of "$number") in
        references) start="general student R" ;;
        distilled) start=$(named "general student D" "$(loss_of_start "$loss")") ;;
        random) continue ;;
      esac
      number=$(named "$number" "$loss")
      compare "$number" "$start" "adapting, configuration $number"
    done
    for variant in "${variants[@]}"; do
      number=$(named "${variant% *}" "${variant#* }")
      compare "$number" "adapted teacher" "configuration $number against its teacher"
    done
    stage 11 "report" "${speed_inputs[@]}" --in "corpora/$name/text/test.$source_lang" \
      --out "speed/$name" \
      -- dad-speed --source "corpora/$name/text/test.$source_lang" --beam "$score_beam" \
      --seconds "$speed_seconds" --out '{out}' "${models[@]}"
    stage 11 "report" "${report_inputs[@]}" --in "speed/$name" --in "corpora/$name/text" \
      --in "plan/$name.rows.tsv" --in "plan/$name.steps.tsv" --out "report/$name" \
      -- dad-report --work . --domain "$name" --out '{out}'

    # 12
    for variant in "${variants[@]}"; do
      ship "$(with_loss ${variant% *} ${variant#* })" "$name"
    done
  done
}

run() {
  if [[ $dry_run ]]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    make_plan "$scratch/plan" chain
    run_plan --plan "$scratch/plan" --dry-run
    return
  fi
  if [[ ${catalogue_sets[*]} ]]; then  # what is fetched decides on the stages that follow
    make_plan plan.part fetch_all
    (( first_stage > 1 )) || run_plan --plan plan.part --last 1
  fi
  make_plan plan.part chain
  rm -rf plan
  mv plan.part plan
  hint
  run_plan exec  # signals go to dad-run
}

# on one line: bash has read all of this file by then, so editing it cannot disturb a run
read_options "$@"; check_options; enter_work; run; exit
