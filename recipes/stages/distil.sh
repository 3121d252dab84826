#!/usr/bin/env bash
# Make a student's training data: a teacher translates the source side, and what is chosen of its
# output replaces the target.
#
# Usage: distil.sh --teacher MODEL --text DIR --vocabulary DIR --source-lang L --target-lang L
#                  --out DIR [options] [-- DAD-GENERATE-FLAGS]
#        distil.sh --translations PLACE ...
#
#   --teacher MODEL          model folder of the teacher
#   --translations PLACE     in its place, what a teacher has translated before: a file with a line
#                            for each line of the training source, or a folder with train.LANG
#                            (plain, .gz or .zst) or decoded/train.LANG, as --out of another run. If
#                            the folder has the source side too, it must be the same line by line.
#                            Where --targets needs several translations of a line: n-best files
#   --text DIR               text folder; its training source is translated, its dev and test stay.
#                            A line without a reference is translated too: data_prep.monolingual
#   --vocabulary DIR         vocabulary folder
#   --source-lang, --target-lang
#   --out DIR                folder to fill: decoded/, text/ and prepared/
#   --beam N                 beam of the teacher
#   --targets NAME           what the student learns, METRIC being chrf or bleu:
#                              best               the teacher's best translation
#                              best-of-N-METRIC   of its N best, that nearest to the reference
#                                                 (Kim & Rush 2016)
#                              mbr-N-METRIC       of N samples, that nearest to all the others
#                                                 (minimum Bayes risk, Eikema & Aziz 2020)
#   --n-best N               with --targets best: keep the N best too, in decoded/
#   --filter STEP            reject pairs by a step of dad-select (dad-select --list-steps), such as
#                            repetition or length-ratio:max=3; may be repeated
#   --rejected WORD          drop what a filter rejects, or take its reference
#   --references WEIGHT      add the references, each so many times
#   --dry-run                print the commands and do nothing
#
# Where it runs is no setting, so it is asked for in the environment and redoes nothing:
#
#   DAD_RAY=ADDRESS          the teacher translates on this Ray cluster: HOST:PORT, or auto for the
#                            one that this machine belongs to

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../command_line.sh"

teacher='' translations='' text='' vocabulary='' source_lang='' target_lang='' out='' beam=5 targets=best
filters=() rejected=drop references='' number='' n_best='' dry_run='' extra=()
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; exit ;;
    --teacher) teacher=$2; shift 2 ;;
    --translations) translations=$2; shift 2 ;;
    --text) text=$2; shift 2 ;;
    --vocabulary) vocabulary=$2; shift 2 ;;
    --source-lang) source_lang=$2; shift 2 ;;
    --target-lang) target_lang=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --beam) beam=$2; shift 2 ;;
    --n-best) n_best=$2; shift 2 ;;
    --targets) targets=$2; shift 2 ;;
    --filter) filters+=(--step "$2"); shift 2 ;;
    --rejected) rejected=$2; shift 2 ;;
    --references) references=$2; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; extra=("$@"); break ;;
    *) unknown_option "$0" "$1" ;;
  esac
done
[[ $translations ]] || require_option "$0" --teacher "$teacher"
[[ ! $translations || ! $teacher ]] \
  || fail "--teacher translates and --translations are there already; leave one of them out"
require_option "$0" --text "$text"
require_option "$0" --vocabulary "$vocabulary"
require_option "$0" --source-lang "$source_lang"
require_option "$0" --target-lang "$target_lang"
require_option "$0" --out "$out"

find_file() {  # FILE...: sets found to the first of them that exists, plain, .gz or .zst
  local file packed existing
  for file in "$@"; do
    existing=()
    for packed in "$file" "$file.gz" "$file.zst"; do
      [[ ! -f $packed ]] || existing+=("$packed")
    done
    (( ${#existing[@]} < 2 )) || fail "${existing[*]} exist; remove what is out of date"
    found=${existing[0]-}
    [[ ! $found ]] || return 0
  done
}

take_translations() {  # sets teacher_words; of the search only the number of candidates counts
  local file=$translations made_from='' several=${n_best:-$number} name
  if [[ -d $translations ]]; then
    name=train.$target_lang${several:+.nbest}
    find_file "$translations/$name" "$translations/decoded/$name"
    [[ $found ]] || fail "--translations: $translations holds neither $name nor decoded/$name"
    file=$found
    find_file "$translations/train.$source_lang"
    made_from=$found
  fi
  teacher_words=(
    --translations "$file" ${made_from:+--translations-of "$made_from"}
    ${several:+--n-best "$several"}
  )
}

candidates=$out/decoded/train.$target_lang.nbest
case $targets in
  best)
    [[ ! $n_best ]] || (( n_best <= beam )) || beam=$n_best
    search=(--beam "$beam" ${n_best:+--n-best "$n_best"})
    choose=()
    candidates=$out/decoded/train.$target_lang
    ;;
  best-of-*)
    targets_of "$targets" best-of
    (( number > beam )) && beam=$number
    search=(--beam "$beam" --n-best "$number")
    choose=(--step "best-of-n:metric=$metric")
    ;;
  mbr-*)
    targets_of "$targets" mbr
    # a model that was trained with label smoothing has noise in its tail
    search=(--sample --n-best "$number" --top-p 0.9)
    choose=(--step "mbr:metric=$metric")
    ;;
  *) fail "--targets is best, best-of-N-METRIC or mbr-N-METRIC, not '$targets'" ;;
esac
teacher_words=(--model "$teacher" "${search[@]}" --calibrate speed)
[[ ! $translations ]] || take_translations
where=()
[[ ! ${DAD_RAY-} || $translations ]] || where=(--engine ray --address "$DAD_RAY")
generate=(
  dad-generate "${teacher_words[@]}"
  --source "$text/train.$source_lang" --out "$out/decoded/train.$target_lang"
  ${where[@]+"${where[@]}"} ${extra[@]+"${extra[@]}"}
)
select=(
  dad-select --source "$text/train.$source_lang" --candidates "$candidates"
  --references "$text/train.$target_lang"
  --source-lang "$source_lang" --target-lang "$target_lang"
  ${choose[@]+"${choose[@]}"} ${filters[@]+"${filters[@]}"}
  --rejected "$rejected" ${references:+--mix "references=$references"}
  --out "$out/text" --overwrite
)
binarise=(
  python -m data_prep.binarise --train "$out/text" --held-out "$text"
  --vocabulary "$vocabulary" --out "$out/prepared"
)

main() {
  if [[ $dry_run ]]; then
    print_command "${generate[@]}"
    print_command "${select[@]}"
    print_command "${binarise[@]}"
    exit
  fi

  mkdir -p "$out/decoded"
  "${generate[@]}"
  "${select[@]}"
  rm -rf "$out/prepared"
  "${binarise[@]}"
}

# on one line: bash has read all of this file by then, so editing it cannot disturb a run
main; exit
