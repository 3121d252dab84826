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

print_command() {  # WORD...: one line that a shell can run
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}
