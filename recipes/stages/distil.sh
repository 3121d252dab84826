#!/usr/bin/env bash
# Make a student's training data: a teacher translates the source side, its output replaces the target.
#
# Usage: distil.sh --teacher MODEL --text DIR --vocabulary DIR --source-lang L --target-lang L --out DIR
#
#   --teacher MODEL          model folder of the teacher
#   --text DIR               text folder; its training source is translated, its dev and test stay
#   --vocabulary DIR         vocabulary folder
#   --source-lang, --target-lang
#   --out DIR                folder to fill: text/ and prepared/
#   --beam N                 beam of the teacher
#   --dry-run                print the commands and do nothing

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../command_line.sh"

teacher='' text='' vocabulary='' source_lang='' target_lang='' out='' beam=5 dry_run=''
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; exit ;;
    --teacher) teacher=$2; shift 2 ;;
    --text) text=$2; shift 2 ;;
    --vocabulary) vocabulary=$2; shift 2 ;;
    --source-lang) source_lang=$2; shift 2 ;;
    --target-lang) target_lang=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --beam) beam=$2; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    *) unknown_option "$0" "$1" ;;
  esac
done
require_option "$0" --teacher "$teacher"
require_option "$0" --text "$text"
require_option "$0" --vocabulary "$vocabulary"
require_option "$0" --source-lang "$source_lang"
require_option "$0" --target-lang "$target_lang"
require_option "$0" --out "$out"

generate=(
  dad-generate --model "$teacher" --beam "$beam"
  --source "$text/train.$source_lang" --out "$out/text/train.$target_lang"
)
copy_source=(cp "$text/train.$source_lang" "$out/text/train.$source_lang")
binarise=(
  python -m data_prep.binarise --train "$out/text" --held-out "$text"
  --vocabulary "$vocabulary" --out "$out/prepared"
)

main() {
  if [[ $dry_run ]]; then
    print_command "${generate[@]}"
    print_command "${copy_source[@]}"
    print_command "${binarise[@]}"
    exit
  fi

  mkdir -p "$out/text"
  "${generate[@]}"
  "${copy_source[@]}"
  rm -rf "$out/prepared"
  "${binarise[@]}"
}

# on one line: bash has read all of this file by then, so editing it cannot disturb a run
main; exit
