# The grid of students: what each configuration starts from and is adapted to, which students the
# options make of it, and what their folders and rows are called.
#
# A student of a domain is SIZE NUMBER VARIANT SEED. A variant differs from the plain student of its
# configuration in one thing: how it learns of a teacher (word, selective, sequence-risk), what it
# learns (best-of-8-chrf, mbr-32-chrf, mixed), a last fine-tune (final), or that it serves all
# domains (multi-domain).
#
# Reads the arrays sizes, configurations, losses, targets and seeds, final and multi_domain.

declare -A start_of target_of  # of a configuration
for number in 1 2 3; do start_of[$number]=random; done
for number in 4 5 6; do start_of[$number]=references; done
for number in 7 8 9; do start_of[$number]=distilled; done
for number in 1 4 7; do target_of[$number]=references; done
for number in 2 5 8; do target_of[$number]=scratch; done
for number in 3 6 9; do target_of[$number]=adapted; done

needs_start() {  # START: whether some configuration has it
  local number
  for number in "${configurations[@]}"; do [[ ${start_of[$number]} != "$1" ]] || return 0; done
  return 1
}
needs_target() {  # TARGET: whether some configuration has it
  local number
  for number in "${configurations[@]}"; do [[ ${target_of[$number]} != "$1" ]] || return 0; done
  return 1
}

# which students

find_variants() {  # sets variants, NUMBER VARIANT each, in order
  local number loss other
  variants=()
  for number in "${configurations[@]}"; do
    for loss in "${losses[@]}"; do
      # a student that learns of no teacher has nothing to learn in another way
      case ${start_of[$number]}/${target_of[$number]}/$loss in
        distilled/references/sequence-risk) loss=plain ;;
        distilled/references/*) ;;
        */references/*) loss=plain ;;
      esac
      [[ $loss != sequence-risk ]] || add_variant "$number plain"  # which it goes on from
      add_variant "$number $loss"
    done
    # the first of the targets are what plain students learn
    for other in "${targets[@]:1}" ${final:+final} ${multi_domain:+multi-domain}; do
      if [[ $other == final || $other == multi-domain || ${target_of[$number]} != references ]]; then
        add_variant "$number plain"
        add_variant "$number $other"
      fi
    done
  done
}

add_variant() {
  local known
  for known in ${variants[@]+"${variants[@]}"}; do [[ $known != "$1" ]] || return 0; done
  variants+=("$1")
}

any_variant() {  # VARIANT: whether some student has it
  local variant
  for variant in "${variants[@]}"; do [[ ${variant#* } != "$1" ]] || return 0; done
  return 1
}

learns_distribution() { any_variant word || any_variant selective; }

loss_of() {  # VARIANT: the loss of the training that ends it
  case $1 in word | selective | sequence-risk) echo "$1" ;; *) echo plain ;; esac
}

loss_of_start() {  # VARIANT: how the general student learnt that it starts from
  case $1 in word | selective) echo "$1" ;; *) echo plain ;; esac
}

starts_with_loss() {  # LOSS: whether some student starts from the general student that has it
  local variant
  for variant in "${variants[@]}"; do
    [[ ${start_of[${variant% *}]} != distilled || $(loss_of_start "${variant#* }") != "$1" ]] || return 0
  done
  return 1
}

target_data() {  # NUMBER VARIANT DOMAIN: the prepared folder that a student learns
  local suffix=''
  case $2 in best | best-of-* | mbr-*) suffix=-$2 ;; esac
  case ${target_of[$1]} in
    references) echo "corpora/$3/prepared" ;;
    scratch) echo "distilled/$3/$3-scratch$suffix/prepared" ;;
    adapted) echo "distilled/$3/$3$suffix/prepared" ;;
  esac
}

# folders and names

with() { [[ $2 == plain ]] && echo "$1" || echo "$1-$2"; }  # NAME VARIANT: of a folder

of_seed() { [[ $1 == "$config_seed" ]] || echo "-seed$1"; }  # SEED: what a folder's name ends in

general_student() {  # SIZE START LOSS SEED
  echo "student/$1/$(with "$2" "$3")$(of_seed "$4")/general"
}

domain_student() {  # SIZE NUMBER VARIANT SEED DOMAIN
  local domain=$5
  [[ $3 != multi-domain ]] || domain=all
  echo "student/$1/$(with "$2" "$3")$(of_seed "$4")/$domain"
}

group() {  # SIZE NAME VARIANT: what the rows are called that differ in the seed only
  local name=$2
  (( ${#sizes[@]} == 1 )) || name="$1 $2"
  [[ $3 == plain ]] && echo "$name" || echo "$name ${3#sequence-}"
}

of_group() {  # GROUP SEED: the name of a row
  (( ${#seeds[@]} == 1 )) && echo "$1" || echo "$1 (seed $2)"
}

in_words() {  # VARIANT: what it adds to the words of a row
  case $1 in
    word | selective) echo " ($1)" ;;
    sequence-risk) echo ", then minimum risk" ;;
    best | best-of-* | mbr-*) echo " (${1//-/ })" ;;
    mixed) echo " and references" ;;
    final) echo ", then references" ;;
    multi-domain) echo ", of all domains" ;;
  esac
}

step_of() {  # VARIANT: the step that it is
  case $1 in
    word) echo "word-level distillation on top" ;;
    selective) echo "selective distillation on top" ;;
    sequence-risk) echo "minimum-risk training at the end" ;;
    best | best-of-* | mbr-*) echo "learning ${1//-/ } instead of ${targets[0]//-/ }" ;;
    mixed) echo "references mixed in" ;;
    final) echo "a last fine-tune on references" ;;
    multi-domain) echo "one student for all domains" ;;
  esac
}
