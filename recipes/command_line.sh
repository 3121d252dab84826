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

targets_of() {  # TARGETS KIND: sets number and metric from KIND-NUMBER-METRIC
  [[ $1 =~ ^$2-([1-9][0-9]*)-(chrf|bleu)$ ]] && (( BASH_REMATCH[1] > 1 )) \
    || fail "--targets is $2-N-METRIC with N above 1 and METRIC chrf or bleu, not '$1'"
  number=${BASH_REMATCH[1]} metric=${BASH_REMATCH[2]}
}

check_adapt() {  # NAME
  [[ $1 =~ ^(plain|anchored|ewc|lora|replay=0?\.[0-9]*[1-9][0-9]*)$ ]] \
    || fail "--adapt is plain, anchored, ewc, lora or replay=SHARE with SHARE between 0 and 1, not '$1'"
}

print_command() {  # WORD...: one line that a shell can run
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}
