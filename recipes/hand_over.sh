# Starting in the middle: how chain.sh declares what was handed over in place of what it would make.
#
# Reads used, continued and begun, {what: place} of --use, --continue and --init.

check_handed_over() {  # ENTRY...: OPTION WHAT=PLACE each; sets used, continued, begun
  local option what place
  declare -gA used=() continued=() begun=()
  while (( $# )); do
    option=$1 what=${2%%=*} place=${2#*=}
    shift 2
    case $option/$what in
      --use/vocabulary | --use/teacher | --use/teacher/?* | --use/distilled | --use/distilled/?*) ;;
      --use/student | --continue/teacher | --continue/student | --init/teacher | --init/student) ;;
      *) fail "$option takes $(takes "$option"), each with =PLACE, not '$what'" ;;
    esac
    [[ $place != "$what" && -e $place ]] || fail "$option $what: there is no file or folder ${place#"$what"}"
    if [[ $what == */* && " ${names[*]} " != *" ${what#*/} "* ]]; then
      fail "$option $what: ${what#*/} is no domain of this run"
    fi
    [[ ! ${used[$what]-}${continued[$what]-}${begun[$what]-} ]] \
      || fail "$what is handed over twice; --use, --continue or --init, one of them"
    case $option in
      --use) used[$what]=$(realpath "$place") ;;
      --continue) continued[$what]=$(realpath "$place") ;;
      --init) begun[$what]=$(realpath "$place") ;;
    esac
  done
  if [[ ${used[student]-}${continued[student]-}${begun[student]-} ]]; then
    (( ${#sizes[@]} == 1 )) || fail "a student that is handed over has one size; name it with --size"
    [[ $student_init == random ]] || fail "--student-init $student_init and a student that is handed over: leave one out"
  fi
  find_vocabulary
}

takes() {  # OPTION: what can be handed over by it
  [[ $1 == --use ]] && echo "vocabulary, teacher, teacher/DOMAIN, student, distilled or distilled/DOMAIN" \
    || echo "teacher or student"
}

find_vocabulary() {  # what is handed over brings its own, or needs one
  local place
  for place in "${used[@]}" "${begun[@]}" "${continued[@]}"; do
    [[ ! ${used[vocabulary]-} && -d $place && -e $place/vocabulary.json ]] || continue
    used[vocabulary]=$place
  done
  for place in teacher student; do
    place=${used[$place]-}${begun[$place]-}${continued[$place]-}
    [[ ! $place || ${used[vocabulary]-} ]] \
      || fail "$place comes without its vocabulary; name the folder that has it: --use vocabulary=DIR"
  done
}

use_vocabulary() {
  stage 2 "vocabulary" --in "${used[vocabulary]}/vocabulary.json" --out vocabulary \
    -- python -m data_prep.vocabulary --from-folder "${used[vocabulary]}" "${languages[@]}" --out '{out}'
}

use_model() {  # NUMBER TITLE PLACE OUT [SIZE]: check a model and take it as it is
  local file=$3
  [[ ! -d $3 ]] || file=$3/model.pt
  [[ -e $file ]] || file=$3/model.safetensors
  stage "$1" "$2" --in "$file" --in vocabulary --out "$4" \
    -- dad-hand-over --model "$3" --vocabulary vocabulary ${5:+--size "$5"} \
    ${unknown_vocabulary:+--allow-unknown-vocabulary} --out '{out}'
}

start_from() {  # NUMBER TITLE MODEL SIZE: adds to learning how a general training starts
  local model=$3
  if [[ ${continued[$model]-} ]]; then
    learning+=(--continue "${continued[$model]}")
    learning_inputs+=(--in "${continued[$model]}")
  elif [[ ${begun[$model]-} ]]; then
    use_model "$1" "$2" "${begun[$model]}" "handed-over/$model" "$4"
    learning+=(--from-model "handed-over/$model")
    learning_inputs+=(--in "handed-over/$model")
  fi
}

use_translations() {  # NUMBER TITLE DOMAIN TEACHER PLACE
  local text
  text=$(sources_of "$3")
  stage "$1" "$2" --resume --in "$5" --in "$text" --in vocabulary --out "distilled/$3/$4" \
    -- distil.sh --translations "$5" --text "$text" --vocabulary vocabulary "${languages[@]}" \
    --out '{out}' "${selection[@]}"
}
