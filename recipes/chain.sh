#!/usr/bin/env bash
# Distil, adapt, distil: from bitext to scored in-domain students (Gordon & Duh 2020).
#
# Usage: run.sh [--corpora DIR] [--domain LIST] [--work DIR] [options] [-- FLAGS OF stages/train.sh]
#
# Text
#
#   --corpora DIR            folder with a folder for each corpus: general/ and one for each domain.
#                            Unset: the catalogue of public sets
#   --domain LIST            domains, for example medical or medical,it; all (the default) takes
#                            all that there are
#   --domain NAME=PLACE      a domain from elsewhere; may be repeated. PLACE is one of
#                            a folder with train.de, train.en, dev.de ... (plain, .gz or .zst, one
#                            sentence a line, not tokenised); a dev or test set that is not there
#                            is taken out of train, by document where train.documents names them
#                            catalogue         the public sets of this pair and domain
#                            catalogue:ID,ID   some of them; python -m data_prep.fetch --list
#                            With monolingual.de in the folder, source text without translations,
#                            teachers translate that too for the students that learn of a teacher
#                            in the domain
#   --general PLACE          general-domain bitext from elsewhere, alike
#   --catalogue FILE         your own catalogue, in place of ours (python -m data_prep.fetch --help)
#   --cleaning FILE          cleaning steps, one a line, in place of the pair's own
#                            (python -m data_prep.clean --print-steps)
#   --lines N                at most N training pairs of every corpus, for a trial
#
# Look before you run
#
#   --plan                   explain what would be done, what is done already, why, and what it
#                            takes; do nothing
#   --dry-run                print every command and do nothing
#
# Models
#
#   --configuration LIST     which of the nine students, for example 9 (the default), 1,4,7,9 or all
#   --size LIST              students: tiny, small, medium, tiny_6_1 ... (or miniature, for
#                            demonstrations); recipes/stages/train.sh --help has all, with numbers
#   --seed LIST              random seeds of the students, for example 1,2,3; each student is trained
#                            with each. Teachers are trained once
#   --teacher-size NAME      teacher: large (miniature_teacher when the student is a miniature)
#   --preset NAME            sizes and updates for a purpose, in place of the paper's:
#                            cpu: an hour or two for a pair, on two cores of a CPU, with miniatures
#   --vocabulary-kind NAME   unigram or bpe (SentencePiece), or subword-nmt
#   --vocabulary-size N      pieces of the joint vocabulary (fewer for little text)
#   --precision NAME         auto (default): bf16, fp16 or fp32, whichever the device has in hardware
#   --updates N              at most N updates in every training, for a trial
#
# What students learn, and how; whatever is listed with commas gets rows of its own in the table
#
#   --targets LIST           what students learn of a teacher: best (default), best-of-8-chrf,
#                            mbr-32-chrf and the like; see recipes/stages/distil.sh --help.
#                            General students learn the first of them. mixed: the first and the
#                            references, shown equally often
#   --filter STEP            reject distilled pairs, for example repetition or copy; may be
#                            repeated (dad-select --list-steps)
#   --rejected WORD          drop what a filter rejects, or take its reference
#   --loss LIST              how students learn of a teacher:
#                            plain          its translations alone (default)
#                            word           its distribution for every word too
#                            selective      the same for the words that are hardest for the student
#                            sequence-risk  plain, then minimum-risk training on its n-best
#   --final references       every configuration goes on with a last fine-tune on references, too
#   --multi-domain           every configuration also as one student for all domains, each shown
#                            equally often (Currey et al. 2020)
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
#
# Starting in the middle: what exists already need not be made again; each is checked first
#
#   --use WHAT=PLACE         take it as it is; may be repeated. WHAT is one of
#                            vocabulary        a vocabulary folder, or a model folder that holds one
#                            teacher, teacher/DOMAIN, student
#                                              a general or adapted teacher, a general student: model
#                                              folder or fairseq checkpoint
#                            distilled, distilled/DOMAIN
#                                              translations of WORK/corpora/NAME/text/train.de, a line
#                                              for each line
#   --continue WHAT=PLACE    the training of the general teacher or student goes on from a checkpoint
#                            of fairseq, with its optimiser and its place in the data
#   --init WHAT=PLACE        its training starts from these weights
#   --allow-unknown-vocabulary
#                            accept checkpoints of stock fairseq, which carry no fingerprint of their
#                            vocabulary; name that with --use vocabulary=DIR
#
# Running
#
#   --work DIR               folder of the run (runs/PAIR); run again to go on or to change settings
#   --jobs N                 stages side by side at most; auto (default): as many as the cores, GPUs
#                            and memory of this machine allow
#   --jobs-per-gpu N         stages that share a GPU, where their memory fits (1)
#   --all-gpus               a training beside which no other can run gets all GPUs, not one
#   --memory GB              memory that a stage needs, in place of our estimate
#   --fail-fast              start nothing more once a stage has failed
#   --launcher COMMAND       trainings under torchrun, also on several machines, for example
#                            'srun torchrun --nnodes 2 --nproc-per-node 4 ...'; see recipes/slurm
#   --ray ADDRESS            teachers translate on this Ray cluster
#   --stage N                begin with stage N
#   --stop-stage N           end with stage N
#   --tensorboard            write curves of every training to WORK/tensorboard/MODEL
#                            (tensorboard --logdir WORK/tensorboard; pip install tensorboard)
#   --wandb PROJECT          send them to Weights & Biases (pip install wandb);
#                            WANDB_MODE=offline keeps them on this machine
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
source "$recipes/options.sh"
source "$recipes/grid.sh"
source "$recipes/plan.sh"
source "$recipes/text.sh"
source "$recipes/models.sh"
source "$recipes/hand_over.sh"

enter_work() {  # stages are written with paths inside the run's folder, which can then be moved
  python=$(command -v python || command -v python3) || fail "there is no Python; version 3.11 to 3.13 is needed"
  root=$(dirname "$recipes")
  export PATH=$recipes/stages:$PATH
  if [[ $only_look ]]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    asked_in=$PWD
    if [[ -d $work ]]; then cd "$work"; else cd "$scratch"; fi
    return
  fi
  command -v dad-run > /dev/null || fail "the environment is not active: source recipes/bootstrap.sh"
  # a wrong step is told now, not after the teacher's training
  if (( ${#filters[@]} )); then
    dad-select --check-steps "${filters[@]/#--filter/--step}" || exit 1
  fi
  mkdir -p "$work" || fail "cannot make the folder $work"
  cd "$work"
}

chain() {
  local name size seed variant other
  languages=(--source-lang "$source_lang" --target-lang "$target_lang")
  # in the words of a stage only where it is not the default, so that old runs stay valid
  selection=(${filters[@]+"${filters[@]}"})
  [[ $rejected == drop ]] || selection+=(--rejected "$rejected")
  distilled=distilled/general/general/prepared

  # 1: text
  fetch_all
  for name in general "${names[@]}"; do
    has_held_out "${raw_folder[$name]}" || split "$name"
  done
  find_held_out
  for name in general "${names[@]}"; do clean "$name"; done
  for name in "${names[@]}"; do
    if has_monolingual "$name"; then sources "$name"; fi
  done
  if [[ $multi_domain ]]; then join_domains; fi
  prove_no_overlap

  # 2: one vocabulary for all models, from general-domain text
  if [[ ${used[vocabulary]-} ]]; then use_vocabulary; else learn_vocabulary; fi

  # 3
  for name in general "${names[@]}" ${multi_domain:+all}; do
    stage 3 "prepared data" --in "corpora/$name/text" --in vocabulary --out "corpora/$name/prepared" \
      -- python -m data_prep.binarise --train "corpora/$name/text" --vocabulary vocabulary --out '{out}'
  done

  # 4
  general_teacher

  # 5 and 6: the general students, and what they learn from
  if needs_start distilled; then
    distil 5 "distilled data" general general "${targets[0]}"
    if learns_distribution; then cache 5 "distilled data" "$distilled" general; fi
  fi
  if [[ $adapt == replay=* ]] && needs_start references && learns_distribution; then
    cache 6 "student" corpora/general/prepared general
  fi
  general_students

  # 7 and 8
  fisher 7 "teacher, in domain" teacher/general
  for name in "${names[@]}"; do
    adapted_teacher
    if needs_target adapted; then
      distil_domain "$name" "$name"
    fi
    if needs_target scratch; then
      train 7 "teacher, in domain" "teacher/$name-scratch" "corpora/$name/prepared" \
        -- --size "$teacher_size"
      distil_domain "$name" "$name-scratch"
    fi
  done

  # 9: the students; equal tries for all
  for name in "${names[@]}"; do
    for_students student
  done

  for name in "${names[@]}"; do
    # 10
    scored=() timed=() groups='|'
    rows_of_domain

    # 11
    steps_of_domain
    speed_and_report

    # 12
    for_students ship
  done
  if (( ${#names[@]} > 1 )); then report_on_all; fi
}

for_students() {  # student|ship: of domain $name; what ships is of the first seed
  local size variant seed
  for size in "${sizes[@]}"; do
    for variant in "${variants[@]}"; do
      for seed in "${seeds[@]}"; do
        [[ $1 != ship || $seed == "${seeds[0]}" ]] || continue
        "$1" "$size" ${variant% *} ${variant#* } "$seed" "$name"
      done
    done
  done
}

speed_and_report() {  # of domain $name
  local model folder speed_inputs=() report_inputs=()
  for model in "${timed[@]}"; do speed_inputs+=(--in "$model"); done
  for folder in "${scored[@]}"; do report_inputs+=(--in "$folder"); done
  stage 11 "report" "${speed_inputs[@]}" --in "corpora/$name/text/test.$source_lang" \
    --out "speed/$name" \
    -- dad-speed --source "corpora/$name/text/test.$source_lang" --beam "$score_beam" \
    --seconds "$speed_seconds" --out '{out}' "${timed[@]}"
  stage 11 "report" "${report_inputs[@]}" --in "speed/$name" --in "corpora/$name/text" \
    --in "plan/$name.rows.tsv" --in "plan/$name.steps.tsv" --out "report/$name" \
    -- dad-report --work . --domain "$name" --out '{out}'
}

report_on_all() {
  local name inputs=()
  for name in "${names[@]}"; do inputs+=(--in "report/$name"); done
  stage 11 "report" "${inputs[@]}" --out report/all \
    -- dad-report --work . --all-domains --out '{out}'
}

run() {
  if [[ $only_look ]]; then
    make_plan "$scratch/plan" chain
    case $only_look in
      --dry-run) pipeline schedule --work . --plan "$plan" --dry-run --first "$first_stage" --last "$last_stage" ;;
      --plan) (cd "$asked_in" && pipeline explain --work "$work" --plan "$plan" --jobs "$jobs_at_once") ;;
    esac
    return
  fi
  if [[ ${catalogue_sets[*]} ]] && (( first_stage == 1 )); then
    make_plan plan.part fetch_all  # what is fetched decides on the stages that follow
    dad-run --work . --plan plan.part --last 1
  fi
  make_plan plan.part chain
  rm -rf plan
  mv plan.part plan
  hint
  # in place of this shell, so that signals reach it
  exec dad-run --work . --jobs "$jobs_at_once" --first "$first_stage" --last "$last_stage" \
    ${run_flags[@]+"${run_flags[@]}"}
}

hint() {  # for a person at a terminal
  [[ -t 2 ]] || return 0
  printf 'Watch this run from another terminal: source %q; dad-report --work %q --watch\n' \
    "$recipes/bootstrap.sh" "$PWD" >&2
}

# on one line: bash has read all of this file by then, so editing it cannot disturb a run
read_options "$@"; check_options; enter_work; run; exit
