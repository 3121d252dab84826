#!/usr/bin/env bash
# Run the recipes of the language pairs from end to end on a few hundred real sentences, with hardly
# any training, configuration 9, and see that every stage is there and no sentence is missing.
#
# Usage: bash tests/recipes/miniatures/run.sh [--work DIR] [PAIR...]
#
#   --work DIR   where the runs go, DIR/PAIR each (default: a temporary folder)
#   PAIR         de-en, ru-en, zh-en (default: all three, one after another)

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
source "$root/recipes/command_line.sh"

work='' pairs=()
while (( $# )); do
  case $1 in
    --help|-h) script_help "$0"; exit ;;
    --work) work=$2; shift 2 ;;
    -*) unknown_option "$0" "$1" ;;
    *) pairs+=("$1"); shift ;;
  esac
done
(( ${#pairs[@]} )) || pairs=(de-en ru-en zh-en)
if [[ ! $work ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi

for pair in "${pairs[@]}"; do
  text=$here/$pair domain=medical
  case $pair in
    de-en) text=$root/recipes/quickstart/data domain=suttas ;;
    ru-en | zh-en) ;;
    *) fail "there is no miniature of '$pair'; there are de-en, ru-en and zh-en" ;;
  esac
  mkdir -p "$work/$pair"
  cat > "$work/$pair/config.sh" <<CONFIG
source "\$recipes/$pair/config.sh"
jobs_at_once=2
# models that have learnt nothing end no sentence, so that decoding takes longest, or every one at
# once: references take the place of what is empty
teacher_beam=2
score_beam=2
speed_seconds=4
CONFIG
  SECONDS=0
  bash "$root/recipes/$pair/run.sh" --config "$work/$pair/config.sh" --work "$work/$pair/run" \
    --general "$text/general" --domain "$domain=$text/$domain" --configuration 9 \
    --size miniature --vocabulary-size 1200 --lines 300 --updates 4 \
    --rejected reference \
    -- --max-tokens 1024 --data-workers 0 --valid-beam 1 --epoch-fraction 1
  # the environment that run.sh has set up, for the check
  (source "$root/recipes/bootstrap.sh"; python "$here/check.py" "$work/$pair/run" "$domain")
  echo "$pair: all stages are there; $SECONDS s"
done
