# What our scripts share: help made from the script's first comment, errors, printing commands.

script_help() {  # SCRIPT: print the comment at its top
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"
}

fail() {  # MESSAGE: print it and stop
  echo "$(basename "$0"): error: $1" >&2
  exit 1
}

unknown_option() {  # SCRIPT OPTION
  fail "unknown option '$2'; $(basename "$1") --help lists them"
}

require_option() {  # SCRIPT OPTION VALUE
  [[ $3 ]] || fail "$2 is missing; $(basename "$1") --help explains it"
}

# the registered architectures without their dad_; a test compares both lists
model_sizes=(
  large medium small tiny medium_12_1 small_12_1 tiny_6_1 miniature_teacher miniature
  l2_w128 l2_w256 l2_w512 l2_w768
  l4_w128 l4_w256 l4_w512 l4_w768
  l6_w128 l6_w256 l6_w512 l6_w768
  l8_w128 l8_w256 l8_w512 l8_w768
  l10_w128 l10_w256 l10_w512 l10_w768
  l12_w128 l12_w256 l12_w512 l12_w768
)

check_size() {  # OPTION NAME: refuse a size that there is not
  local known list
  for known in "${model_sizes[@]}"; do
    [[ $2 != "$known" ]] || return 0
  done
  printf -v list '%s, ' "${model_sizes[@]}"
  fail "$1 '$2' is unknown; there are ${list%, }"
}

targets_of() {  # TARGETS KIND: sets number and metric from KIND-NUMBER-METRIC
  [[ $1 =~ ^$2-([1-9][0-9]*)-(chrf|bleu)$ ]] && (( BASH_REMATCH[1] > 1 )) \
    || fail "--targets is $2-N-METRIC with N above 1 and METRIC chrf or bleu, not '$1'"
  number=${BASH_REMATCH[1]} metric=${BASH_REMATCH[2]}
}

check_adapt() {  # NAME
  local number='([0-9]+|[0-9]*\.[0-9]+)'
  [[ $1 =~ ^(plain|(anchored|ewc)(=$number)?|lora|replay=0?\.[0-9]*[1-9][0-9]*)$ ]] || fail "\
--adapt is plain, anchored[=WEIGHT], ewc[=WEIGHT], lora or replay=SHARE with SHARE between 0 and 1, not '$1'"
}

print_command() {  # WORD...: one line that a shell can run
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}
