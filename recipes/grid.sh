# The grid of students: what each configuration starts from and is adapted to, which students the
# losses asked for make of it, and what those are called.
#
# Reads configurations and losses, arrays.

start_of() { case $1 in [123]) echo random ;; [456]) echo references ;; [789]) echo distilled ;; esac; }
target_of() { case $1 in [147]) echo references ;; [258]) echo scratch ;; [369]) echo adapted ;; esac; }
target_data() {  # NUMBER DOMAIN: what a configuration is adapted to
  case $(target_of "$1") in
    references) echo "corpora/$2/prepared" ;;
    scratch) echo "distilled/$2/$2-scratch/prepared" ;;
    adapted) echo "distilled/$2/$2/prepared" ;;
  esac
}

needs() {  # KIND VALUE: whether some configuration has this start or target
  local number
  for number in "${configurations[@]}"; do
    [[ $("${1}_of" "$number") != "$2" ]] || return 0
  done
  return 1
}

# students of a domain: NUMBER LOSS

find_variants() {  # sets variants, in order
  local number loss
  variants=()
  for number in "${configurations[@]}"; do
    for loss in "${losses[@]}"; do
      # a student that learns of no teacher has nothing to learn in another way
      case $(start_of "$number")/$(target_of "$number")/$loss in
        distilled/references/sequence-risk) loss=plain ;;
        distilled/references/*) ;;
        */references/*) loss=plain ;;
      esac
      [[ $loss != sequence-risk ]] || add_variant "$number plain"  # which it goes on from
      add_variant "$number $loss"
    done
  done
}

add_variant() {
  local known
  for known in ${variants[@]+"${variants[@]}"}; do [[ $known != "$1" ]] || return 0; done
  variants+=("$1")
}

any_loss() {  # LOSS: whether some student has it
  local variant
  for variant in "${variants[@]}"; do [[ ${variant#* } != "$1" ]] || return 0; done
  return 1
}

learns_distribution() { any_loss word || any_loss selective; }

starts_with_loss() {  # LOSS: whether some student starts from the general student that has it
  local variant
  for variant in "${variants[@]}"; do
    [[ $(start_of "${variant% *}")-$(loss_of_start "${variant#* }") != "distilled-$1" ]] || return 0
  done
  return 1
}

loss_of_start() { [[ $1 == sequence-risk ]] && echo plain || echo "$1"; }

# names

with_loss() { [[ $2 == plain ]] && echo "$1" || echo "$1-$2"; }  # NAME LOSS: of a folder

named() { [[ $2 == plain ]] && echo "$1" || echo "$1 ${2#sequence-}"; }  # NAME LOSS: of a row

in_words() {  # LOSS: what it adds to the words of a row
  case $1 in
    word | selective) echo " ($1)" ;;
    sequence-risk) echo ", then minimum risk" ;;
  esac
}

step_of() {  # LOSS: the step that it is
  case $1 in
    word) echo "word-level distillation on top" ;;
    selective) echo "selective distillation on top" ;;
    sequence-risk) echo "minimum-risk training at the end" ;;
  esac
}
