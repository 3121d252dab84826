# How chain.sh declares what makes, scores and ships models.

train() {  # NUMBER TITLE OUT DATA [dad-stage flags] -- TRAIN.SH-FLAGS
  local number=$1 title=$2 out=$3 data=$4 flags=()
  shift 4
  while [[ $1 != -- ]]; do flags+=("$1"); shift; done
  stage "$number" "$title" --resume --screen train --in "$data" "${flags[@]}" --out "$out" \
    -- train.sh --data "$data" --out '{out}' "${training[@]}" "${@:2}" \
    ${updates:+--updates "$updates"} ${precision:+--precision "$precision"} \
    ${train_flags[@]+"${train_flags[@]}"}
}

general_teacher() {
  learning=() learning_inputs=()
  training=("${teacher_training[@]}")
  if [[ ${used[teacher]-} ]]; then
    # of any shape, if nothing but its translations is wanted
    use_model 4 "teacher" "${used[teacher]}" teacher/general "$(trained_on "$teacher_size")"
    return
  fi
  start_from 4 "teacher" teacher "$teacher_size"
  train 4 "teacher" teacher/general corpora/general/prepared \
    ${learning_inputs[@]+"${learning_inputs[@]}"} -- --size "$teacher_size" ${learning[@]+"${learning[@]}"}
}

trained_on() {  # SIZE: of the general teacher, if another model starts from its weights
  local name
  [[ $student_init == random ]] || { echo "$1"; return; }
  for name in "${names[@]}"; do
    [[ ${used[teacher/$name]-} ]] || { echo "$1"; return; }
  done
}

adapted_teacher() {  # of domain $name
  if [[ ${used[teacher/$name]-} ]]; then
    use_model 7 "teacher, in domain" "${used[teacher/$name]}" "teacher/$name"
    return
  fi
  training=("${teacher_adaptation[@]}")
  learning=() learning_inputs=()
  adapt teacher/general corpora/general/prepared
  train 7 "teacher, in domain" "teacher/$name" "corpora/$name/prepared" "${learning_inputs[@]}" \
    -- --size "$teacher_size" "${learning[@]}"
}

value_of() {  # FLAG WORD...: what follows the last FLAG
  local flag=$1 word before='' value=''
  for word in "${@:2}"; do
    [[ $before != "$flag" ]] || value=$word
    before=$word
  done
  echo "$value"
}

# what teachers make

distil() {  # NUMBER TITLE DOMAIN TEACHER TARGETS [DISTIL.SH-FLAGS]
  local text out=distilled/$3/$4 target_flags=() given=distilled/$3
  [[ $3 != general ]] || given=distilled
  if [[ ${used[$given]-} && $4 == "$3" && $5 == "${targets[0]}" ]]; then
    use_translations "${@:1:4}" "${used[$given]}"
    return
  fi
  text=$(sources_of "$3")
  [[ $5 == "${targets[0]}" ]] || out+=-$5
  [[ $5 == best ]] || target_flags=(--targets "$5")
  stage "$1" "$2" --resume --in "teacher/$4" --in "$text" --in vocabulary --out "$out" \
    -- distil.sh --teacher "teacher/$4" --text "$text" --vocabulary vocabulary \
    "${languages[@]}" --beam "$teacher_beam" --out '{out}' \
    ${target_flags[@]+"${target_flags[@]}"} "${selection[@]}" "${@:6}" \
    ${teacher_compute_type:+-- --compute-type "$teacher_compute_type"}
}

cache() {  # NUMBER TITLE DATA TEACHER: the teacher's distribution over a prepared folder
  stage "$1" "$2" --resume --in "teacher/$4" --in "$3" --out "$(cache_of "$3")" \
    -- dad-cache-teacher --teacher "teacher/$4" --data "$3" --out '{out}/distribution'
}
cache_of() { echo "cached/${1%/prepared}"; }

candidates() {  # NUMBER TITLE DOMAIN TEACHER: the teacher's n-best with their costs
  local text
  text=$(sources_of "$3")
  stage "$1" "$2" --in "distilled/$3/$4" --in "$text" --out "candidates/$3/$4" \
    -- dad-candidates --nbest "distilled/$3/$4/decoded/train.$target_lang.nbest" \
    --source "$text/train.$source_lang" --references "$text/train.$target_lang" \
    --data "distilled/$3/$4/prepared" --out '{out}'
}

fisher() {  # NUMBER TITLE MODEL: what matters in its weights for the general domain
  [[ $adapt == ewc* ]] || return 0
  stage "$1" "$2" --in "$3" --in corpora/general/prepared --out "fisher/$3" \
    -- dad-estimate-fisher --model "$3" --data corpora/general/prepared --out '{out}/fisher.pt'
}

distil_domain() {  # DOMAIN TEACHER: and what the variants need of that teacher
  local title="distilled data, in domain" n_best=() other
  if any_variant sequence-risk; then n_best=(--n-best "$risk_candidates"); fi
  distil 8 "$title" "$1" "$2" "${targets[0]}" ${n_best[@]+"${n_best[@]}"}
  for other in "${targets[@]:1}"; do
    [[ $other == mixed ]] || distil 8 "$title" "$1" "$2" "$other"
  done
  if learns_distribution; then cache 8 "$title" "distilled/$1/$2/prepared" "$2"; fi
  if any_variant sequence-risk; then candidates 8 "$title" "$1" "$2"; fi
}

# how a model learns: these add to learning, flags of train.sh, and learning_inputs, of dad-stage

learn() {  # LOSS DATA...: DATA with a loss
  local loss=$1 data caches=() list
  shift
  [[ $loss != plain ]] || return 0
  learning+=(--loss "$loss")
  if [[ $loss == sequence-risk ]]; then
    data=${1%/prepared}
    learning+=(--candidates "candidates/${data#distilled/}")
    learning_inputs+=(--in "candidates/${data#distilled/}")
    return
  fi
  for data in "$@"; do
    caches+=("$(cache_of "$data")/distribution")
    learning_inputs+=(--in "$(cache_of "$data")")
  done
  printf -v list ':%s' "${caches[@]}"
  learning+=(--teacher-cache "${list#:}")
}

adapt() {  # INIT GENERAL-DATA: from INIT
  learning+=(--init "$1") learning_inputs+=(--in "$1")
  [[ $adapt == plain ]] || learning+=(--adapt "$adapt")
  case $adapt in
    replay=*) learning+=(--general "$2") learning_inputs+=(--in "$2") ;;
    ewc*) learning+=(--fisher "fisher/$1/fisher.pt") learning_inputs+=(--in "fisher/$1") ;;
  esac
}

mix() {  # DATA...: several prepared folders, of which each is shown equally often
  local folder list
  for folder in "$@"; do
    learning_inputs+=(--in "$folder")
  done
  printf -v list ',%s=1' "$@"
  learning+=(--mixture "${list#,}" --mixture-temperature inf)
}

validate_domains() {  # each on its own, too; all together choose the checkpoint
  local name list=''
  for name in "${names[@]}"; do
    list+=,${name//-/_}=corpora/$name/prepared
    learning_inputs+=(--in "corpora/$name/prepared")
  done
  learning+=(--valid-domains "${list#,}")
}

with_seed() {  # SEED: the config's own needs no word
  [[ $1 == "$config_seed" ]] || learning+=(--seed "$1")
}

# students

general_students() {  # of all sizes and seeds
  local size seed loss starting=()
  [[ $student_init == random ]] || starting=(--from-teacher "$student_init=teacher/general")
  training=("${student_training[@]}")
  for size in "${sizes[@]}"; do
    for seed in "${seeds[@]}"; do
      if needs_start distilled; then
        for loss in plain word selective; do
          starts_with_loss "$loss" || continue
          general_student_on "$size" distilled "$loss" "$seed" "$distilled"
        done
      fi
      if needs_start references; then
        general_student_on "$size" references plain "$seed" corpora/general/prepared
      fi
    done
  done
}

general_student_on() {  # SIZE START LOSS SEED DATA
  local out
  out=$(general_student "$1" "$2" "$3" "$4")
  learning=() learning_inputs=()
  if [[ $2 == distilled && $3 == plain ]]; then
    if [[ ${used[student]-} ]]; then
      use_model 6 "student" "${used[student]}" "$out" "$1"
      fisher 6 "student" "$out"
      return
    fi
    start_from 6 "student" student "$1"
  fi
  learn "$3" "$5"
  with_seed "$4"
  train 6 "student" "$out" "$5" ${starting[@]+--in teacher/general} \
    ${learning_inputs[@]+"${learning_inputs[@]}"} \
    -- --size "$1" ${starting[@]+"${starting[@]}"} ${learning[@]+"${learning[@]}"}
  [[ $3 != plain ]] || fisher 6 "student" "$out"
}

student() {  # SIZE NUMBER VARIANT SEED DOMAIN
  local data general start loss out each folders=()
  data=$(target_data "$2" "$3" "$5")
  out=$(domain_student "$@")
  learning=() learning_inputs=()
  training=("${student_adaptation[@]}")
  case $3 in
    sequence-risk)
      training=("${student_risk[@]}")
      go_on_from "$(domain_student "$1" "$2" plain "$4" "$5")"
      learn "$3" "$data"
      ;;
    final)
      training=("${student_final[@]}")
      data=corpora/$5/prepared
      go_on_from "$(domain_student "$1" "$2" plain "$4" "$5")"
      ;;
    *)
      start=${start_of[$2]}
      [[ $start == references ]] && general=corpora/general/prepared || general=$distilled
      if [[ $start != random ]]; then
        loss=plain
        [[ $start != distilled ]] || loss=$(loss_of_start "$3")
        adapt "$(general_student "$1" "$start" "$loss" "$4")" "$general"
      fi
      if [[ ${target_of[$2]} != references ]]; then
        [[ $adapt == replay=* && $start != random ]] || general=''
        learn "$(loss_of "$3")" "$data" $general
      fi
      ;;
  esac
  if [[ $3 == mixed ]]; then mix "$data" "corpora/$5/prepared"; fi
  if [[ $3 == multi-domain ]]; then
    data=corpora/all/prepared
    for each in "${names[@]}"; do folders+=("$(target_data "$2" "$3" "$each")"); done
    mix "${folders[@]}"
    validate_domains
    # as many updates as the students of one domain have together
    training+=(--updates $(( $(value_of --updates "${training[@]}") * ${#names[@]} )))
  fi
  with_seed "$4"
  train 9 "students, in domain" "$out" "$data" ${learning_inputs[@]+"${learning_inputs[@]}"} \
    -- --size "$1" ${learning[@]+"${learning[@]}"}
}

go_on_from() {  # MODEL
  learning=(--init "$1") learning_inputs=(--in "$1")
}

# scores, and what ships

row() {  # SIZE CONFIGURATION VARIANT SEED NAME LABEL MODEL: a row of the table of domain $name
  local row_name
  row_name=$(of_group "$5" "$4")
  [[ $7 != teacher/* ]] || row_name=$5  # trained once
  in_table "$name.rows" "$row_name" "$5" "$6" "$7" "$1" "$2" "$3" "$4"
  score "$7" "$row_name" "$6" "$name"
  scored+=("scores/$name/$7") groups+="$5|"
  # another seed is not faster
  [[ $4 != "${seeds[0]}" ]] || timed+=("exported/$7")
}

score() {  # MODEL NAME LABEL DOMAIN
  local texts=() corpus split lang
  for corpus in "$4" general; do
    for split in train test; do
      for lang in "$source_lang" "$target_lang"; do texts+=(--in "corpora/$corpus/text/$split.$lang"); done
    done
  done
  stage 10 "scores" --in "$1" --out "exported/$1" \
    -- dad-export --model "$1" --compute-type "$export_type" --out '{out}'
  stage 10 "scores" --in "exported/$1" "${texts[@]}" --out "scores/$4/$1" \
    -- dad-evaluate --model "exported/$1" --name "$2" --label "$3" --beam "$score_beam" \
    --test "$4=corpora/$4/text" --test general=corpora/general/text \
    --train "$4=corpora/$4/text" --train general=corpora/general/text --out '{out}'
}

rows_of_domain() {
  local size seed loss variant number label more=''
  local general='general references' adapted handed='handed over' students="general teacher's output"
  [[ ! ${used[teacher]-} ]] || general=$handed
  [[ ! ${used[student]-} ]] || students=$handed
  adapted="$general, then $name references"
  [[ ! ${used[teacher/$name]-} ]] || adapted=$handed
  row "$teacher_size" teacher plain "${seeds[0]}" teacher "$general" teacher/general
  row "$teacher_size" adapted-teacher plain "${seeds[0]}" "adapted teacher" "$adapted" "teacher/$name"
  # students that learn of a teacher may see more text than those that learn from references
  if has_monolingual "$name"; then more=' + monolingual'; fi
  for size in "${sizes[@]}"; do
    if needs_start references; then
      for seed in "${seeds[@]}"; do
        row "$size" references plain "$seed" "$(group "$size" "general student R" plain)" \
          "general references" "$(general_student "$size" references plain "$seed")"
      done
    fi
    for loss in plain word selective; do
      starts_with_loss "$loss" || continue
      for seed in "${seeds[@]}"; do
        row "$size" distilled "$loss" "$seed" "$(group "$size" "general student D" "$loss")" \
          "$students$(in_words "$loss")" \
          "$(general_student "$size" distilled "$loss" "$seed")"
      done
    done
    for variant in "${variants[@]}"; do
      number=${variant% *} variant=${variant#* }
      label=$(label_of "$number" "$variant")
      for seed in "${seeds[@]}"; do
        row "$size" "$number" "$variant" "$seed" "$(group "$size" "$number" "$variant")" "$label" \
          "$(domain_student "$size" "$number" "$variant" "$seed" "$name")"
      done
    done
  done
}

label_of() {  # NUMBER VARIANT: what a student of domain $name was trained on
  local label=''
  case ${start_of[$1]} in
    references) label='general references, then ' ;;
    distilled) label="$students$(in_words "$(loss_of_start "$2")"), then " ;;
  esac
  case ${target_of[$1]} in
    references) label+="$name references" ;;
    scratch) label+="$name-only teacher's output$more" ;;
    adapted) label+="adapted teacher's output$more" ;;
  esac
  [[ ${target_of[$1]} == references && $(loss_of "$2") != plain ]] || label+=$(in_words "$2")
  echo "$label"
}

compare() {  # NEW OLD WORDS: groups, if both have rows
  if [[ $groups == *"|$1|"* && $groups == *"|$2|"* ]]; then in_table "$name.steps" "$1" "$2" "$3"; fi
}

steps_of_domain() {
  local size
  compare "adapted teacher" teacher "adapting the teacher"
  for size in "${sizes[@]}"; do steps_of_size "$size"; done
}

steps_of_size() {  # SIZE
  local of='' variant number start
  (( ${#sizes[@]} == 1 )) || of=", $1"
  step() {  # NEW OLD WORDS: of plain configurations
    compare "$(group "$size" "$1" plain)" "$(group "$size" "$2" plain)" "$3$of"
  }
  step 4 1 "starting from a general student"
  step 7 4 "distilling the general data"
  step 9 7 "distilling again, with the adapted teacher"
  step 3 1 "distilling in the domain alone, with the adapted teacher"
  step 6 4 "distilling in the domain, after general references"
  step 3 2 "adapting the teacher rather than training it on the domain alone, for 3 against 2"
  step 6 5 "adapting the teacher rather than training it on the domain alone, for 6 against 5"
  step 9 8 "adapting the teacher rather than training it on the domain alone, for 9 against 8"
  for variant in "${variants[@]}"; do
    number=${variant% *} variant=${variant#* }
    [[ $variant == plain ]] || compare "$(group "$size" "$number" "$variant")" \
      "$(group "$size" "$number" plain)" "$(step_of "$variant"), configuration $number$of"
  done
  for variant in "${variants[@]}"; do
    number=${variant% *} variant=${variant#* }
    case ${start_of[$number]} in
      references) start=$(group "$size" "general student R" plain) ;;
      distilled) start=$(group "$size" "general student D" "$(loss_of_start "$variant")") ;;
      random) continue ;;
    esac
    compare "$(group "$size" "$number" "$variant")" "$start" \
      "adapting, configuration $(with "$number" "$variant")$of"
  done
  for variant in "${variants[@]}"; do
    number=${variant% *} variant=${variant#* }
    compare "$(group "$size" "$number" "$variant")" "adapted teacher" \
      "configuration $(with "$number" "$variant") against its teacher$of"
  done
}

ship() {  # SIZE NUMBER VARIANT SEED DOMAIN: a student with all that its users need
  local model records=() corpus lang
  model=$(domain_student "$@")
  for lang in "$source_lang" "$target_lang"; do records+=(--in "corpora/$5/text/dev.$lang"); done
  for corpus in general "$5"; do records+=(--in "corpora/$corpus/text/ledger.json"); done
  stage 12 "shipped" --in "$model" --in "scores/$5/$model" --in "speed/$5" "${records[@]}" \
    --out "shipped/$5/$1/$(with "$2" "$3")" \
    -- dad-export --model "$model" --compute-type "$export_type" --domain "$5" \
    --dev "corpora/$5/text" --beam "$score_beam" --max-loss "$export_max_loss" \
    --text corpora/general/text --text "corpora/$5/text" \
    --scores "scores/$5/$model" --speed "speed/$5/speed.json" --safetensors --out '{out}'
}
