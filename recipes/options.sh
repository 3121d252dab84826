# The options of chain.sh: read, checked, and what they leave open found in the config.

read_options() {  # sets the variables named after the options
  given=("$0" "$@") started_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  config='' preset='' corpora='' general='' domains=() work='' catalogue='' cleaning=''
  vocabulary_kind='' size='' teacher_size='' configuration='' updates='' seed=''
  targets=best filters=() rejected=drop loss=plain adapt=plain student_init=random final='' multi_domain=''
  lines='' precision='' chosen_jobs='' chosen_vocabulary_size='' first_stage=1 last_stage=12
  only_look='' train_flags=() run_flags=() handed_over=() unknown_vocabulary=''
  while (( $# )); do
    case $1 in
      --help|-h) script_help "$0"; exit ;;
      --dry-run|--plan) only_look=$1; shift; continue ;;
      --tensorboard) export DAD_TENSORBOARD=tensorboard; shift; continue ;;
      --multi-domain) multi_domain=1; shift; continue ;;
      --all-gpus|--fail-fast) run_flags+=("$1"); shift; continue ;;
      --allow-unknown-vocabulary) unknown_vocabulary=1; shift; continue ;;
      --) train_flags=("${@:2}"); break ;;
    esac
    (( $# >= 2 )) || { [[ $1 == --* ]] && fail "$1 needs a value"; unknown_option "$0" "$1"; }
    case $1 in
      --config) config=$2 ;;
      --preset) preset=$2 ;;
      --corpora) corpora=$2 ;;
      --general) general=$2 ;;
      --domain) domains+=("$2") ;;
      --work) work=$2 ;;
      --catalogue) catalogue=$2 ;;
      --cleaning) cleaning=$2 ;;
      --vocabulary-kind) vocabulary_kind=$2 ;;
      --size) size=$2 ;;
      --teacher-size) teacher_size=$2 ;;
      --configuration) configuration=$2 ;;
      --seed) seed=$2 ;;
      --vocabulary-size) chosen_vocabulary_size=$2 ;;
      --jobs) chosen_jobs=$2 ;;
      --precision) precision=$2 ;;
      --targets) targets=$2 ;;
      --filter) filters+=(--filter "$2") ;;
      --rejected) rejected=$2 ;;
      --loss) loss=$2 ;;
      --adapt) adapt=$2 ;;
      --final) final=$2 ;;
      --student-init) student_init=$2 ;;
      --updates) updates=$2 ;;
      --lines) lines=$2 ;;
      --use|--continue|--init) handed_over+=("$1" "$2") ;;
      --jobs-per-gpu|--memory) run_flags+=("$1" "$2") ;;
      --launcher) export DAD_LAUNCHER=$2 ;;
      --ray) export DAD_RAY=$2 ;;
      --wandb) export DAD_WANDB=$2 ;;
      --stage) first_stage=$2 ;;
      --stop-stage) last_stage=$2 ;;
      *) unknown_option "$0" "$1" ;;
    esac
    shift 2
  done
}

check_options() {  # and find what they leave open in the config
  require_option "$0" --config "$config"
  local number
  for number in "$first_stage" "$last_stage"; do
    [[ $number =~ ^([1-9]|1[012])$ ]] || fail "a stage is a number from 1 to 12, not '$number'"
  done
  for number in $updates $lines $chosen_vocabulary_size; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "expected a number above 0, not '$number'"
  done
  [[ ! $chosen_jobs || $chosen_jobs =~ ^(auto|[1-9][0-9]*)$ ]] \
    || fail "--jobs is auto or a number above 0, not '$chosen_jobs'"
  catalogue_domains=() most_lines=''
  source "$config"
  as_people_call_it
  use_preset
  jobs_at_once=${chosen_jobs:-$jobs_at_once}
  lines=${lines:-$most_lines}
  work=${work:-$(dirname "$recipes")/runs/$source_lang-$target_lang}
  check_sizes
  check_students
  check_seeds
  [[ ! $vocabulary_kind || $vocabulary_kind =~ ^(unigram|bpe|subword-nmt)$ ]] \
    || fail "--vocabulary-kind is unigram, bpe or subword-nmt, not '$vocabulary_kind'"
  find_corpora
  check_handed_over ${handed_over[@]+"${handed_over[@]}"}
}

as_people_call_it() {  # the command in the records: the pair's run.sh, which names its own config
  local folder word words=()
  folder=$(cd "$(dirname "$config")" && pwd)
  [[ -f $folder/run.sh ]] || return 0
  for word in "${given[@]:1}"; do
    if [[ $word == "$config" ]]; then unset 'words[-1]'; else words+=("$word"); fi
  done
  given=("$folder/run.sh" ${words[@]+"${words[@]}"})
}

use_preset() {
  local known
  [[ $preset ]] || return 0
  if [[ ! -f $recipes/presets/$preset.sh ]]; then
    known=$(cd "$recipes/presets" && printf '%s ' *.sh)
    fail "there is no preset '$preset'; there are: ${known//.sh/}"
  fi
  source "$recipes/presets/$preset.sh"
}

check_sizes() {
  local one
  IFS=', ' read -r -a sizes <<< "${size:-$student_size}"
  for one in "${sizes[@]}"; do check_size --size "$one"; done
  if [[ ! $teacher_size ]]; then
    [[ ${sizes[*]} == miniature ]] && teacher_size=miniature_teacher || teacher_size=$default_teacher_size
  fi
  check_size --teacher-size "$teacher_size"
}

check_students() {  # configurations, and how they learn
  local number
  [[ $configuration != all ]] || configuration=1,2,3,4,5,6,7,8,9
  IFS=', ' read -r -a configurations <<< "${configuration:-9}"
  for number in "${configurations[@]}"; do
    [[ $number =~ ^[1-9]$ ]] || fail "a configuration is a number from 1 to 9, or all, not '$number'"
  done
  IFS=', ' read -r -a targets <<< "$targets"
  for target in "${targets[@]}"; do
    case $target in
      best) ;;
      best-of-*) targets_of "$target" best-of ;;
      mbr-*) targets_of "$target" mbr ;;
      mixed) [[ ${targets[0]} != mixed ]] || fail "--targets mixed adds references to other targets; name those first, for example best,mixed" ;;
      *) fail "--targets is best, best-of-N-METRIC or mbr-N-METRIC, or several with commas, mixed among them, not '$target'" ;;
    esac
  done
  [[ $rejected == drop || $rejected == reference ]] \
    || fail "--rejected is drop or reference, not '$rejected'"
  IFS=', ' read -r -a losses <<< "$loss"
  for loss in "${losses[@]}"; do
    [[ $loss =~ ^(plain|word|selective|sequence-risk)$ ]] \
      || fail "--loss is plain, word, selective or sequence-risk, or several with commas, not '$loss'"
  done
  check_adapt "$adapt"
  case $final in
    '' | none) final='' ;;
    references) ;;
    *) fail "--final is none or references, not '$final'" ;;
  esac
  [[ $student_init =~ ^(random|first|every-other)$ ]] \
    || fail "--student-init is random, first or every-other, not '$student_init'"
  if [[ $adapt == anchored* || $adapt == ewc* ]] && [[ ${losses[*]} != plain ]]; then
    fail "--adapt $adapt and --loss ${losses[*]} are two losses for one training; leave one out"
  fi
  find_variants
}

check_seeds() {
  local one
  config_seed=$(value_of --seed "${student_adaptation[@]}")
  config_seed=${config_seed:-1}
  IFS=', ' read -r -a seeds <<< "${seed:-$config_seed}"
  for one in "${seeds[@]}"; do
    [[ $one =~ ^[0-9]+$ ]] || fail "--seed is a number, or several with commas, not '$one'"
  done
  [[ $(printf '%s\n' "${seeds[@]}" | sort -u | wc -l) == "${#seeds[@]}" ]] \
    || fail "--seed ${seeds[*]} names a seed twice"
}

# corpora

find_corpora() {
  local file entry name
  for file in "$catalogue" "$cleaning"; do
    [[ ! $file || -f $file ]] || fail "there is no file $file"
  done
  catalogue=${catalogue:+$(realpath "$catalogue")} cleaning=${cleaning:+$(realpath "$cleaning")}
  [[ ! $corpora || -d $corpora ]] || fail "--corpora: there is no folder $corpora"
  declare -gA raw_folder=() catalogue_sets=()
  find_corpus --general general "${general:-$(place_of general)}"
  names=()
  for entry in "${domains[@]-all}"; do
    if [[ $entry == *=* ]]; then
      add_domain "${entry%%=*}" "${entry#*=}"
    else
      for name in $(domains_in "$entry"); do add_domain "$name" "$(place_of "$name")"; done
    fi
  done
  (( ${#names[@]} )) || fail "there is no domain; --domain NAME=PLACE names one"
  [[ ! $multi_domain ]] || (( ${#names[@]} > 1 )) \
    || fail "--multi-domain is one student for several domains; name another --domain"
}

place_of() { [[ $corpora ]] && echo "$corpora/$1" || echo catalogue; }  # NAME: where nothing else is said

domains_in() {  # LIST: names, of all that there are for "all"
  local folder
  if [[ $1 != all ]]; then
    echo "${1//,/ }"
  elif [[ ! $corpora ]]; then
    echo "${catalogue_domains[*]}"
  else
    for folder in "$corpora"/*/; do
      folder=${folder%/}
      [[ ${folder##*/} == general ]] || ! compgen -G "$folder/train*.$source_lang*" > /dev/null \
        || echo "${folder##*/}"
    done
  fi
}

add_domain() {  # NAME PLACE
  [[ $1 =~ ^[A-Za-z0-9_-]+$ && $2 ]] \
    || fail "--domain takes NAME=PLACE, NAME of letters, digits, - and _, not '$1=$2'"
  [[ $1 != general && $1 != all ]] || fail "a domain cannot be called $1; that word means something here"
  [[ " ${names[*]-} " != *" $1 "* ]] || fail "the domain $1 is named twice"
  find_corpus --domain "$1" "$2"
  names+=("$1")
}

find_corpus() {  # OPTION NAME PLACE: sets raw_folder[NAME], and catalogue_sets[NAME] if it is to be fetched
  case $3 in
    catalogue) catalogue_sets[$2]="--domain $2" ;;
    catalogue:?*) catalogue_sets[$2]="--id ${3#catalogue:}"; catalogue_sets[$2]=${catalogue_sets[$2]//,/ --id } ;;
    *)
      [[ -d $3 ]] || fail "$1: there is no folder $3"
      raw_folder[$2]=$(cd "$3" && pwd)
      return
      ;;
  esac
  raw_folder[$2]=corpora/$2/raw
}
