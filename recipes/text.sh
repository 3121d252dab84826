# How chain.sh declares the stages that make text ready, and learn the vocabulary.
#
# Reads raw_folder[NAME], catalogue_sets[NAME], languages, held_out, held_out_inputs.

fetch() {  # NAME
  stage 1 "corpora" --out "${raw_folder[$1]}" \
    ${catalogue:+--in "$catalogue"} \
    -- python -m data_prep.fetch --pair "$source_lang-$target_lang" ${catalogue_sets[$1]} \
    ${catalogue:+--catalogue "$catalogue"} --out '{out}'
}

has_text() {  # FOLDER SPLIT
  [[ -e $1/$2.$source_lang || -e $1/$2.$source_lang.gz || -e $1/$2.$source_lang.zst ]]
}
has_held_out() { has_text "$1" dev && has_text "$1" test; }  # FOLDER, when it has been fetched

fetch_all() {
  local name
  for name in general "${names[@]}"; do
    [[ ! ${catalogue_sets[$name]-} ]] || fetch "$name"
  done
}

split() {  # NAME
  stage 1 "corpora" --in "${raw_folder[$1]}" --out "corpora/$1/split" \
    -- python -m data_prep.split --in "${raw_folder[$1]}" "${languages[@]}" --out '{out}'
}

text_source() {  # NAME: prints the folder that clean reads
  if has_held_out "${raw_folder[$1]}"; then echo "${raw_folder[$1]}"; else echo "corpora/$1/split"; fi
}

find_held_out() {  # no training line of any corpus may stand in the dev or test set of any other
  local folder file
  held_out=() held_out_inputs=()
  while read -r folder; do
    held_out+=(--held-out "$folder")
    while read -r file; do held_out_inputs+=(--in "$file"); done < <(held_out_files "$folder")
  done < <(for name in general "${names[@]}"; do text_source "$name"; done | sort)
}

held_out_files() {  # FOLDER: its dev and test sets; those that are split off are packed like train
  local file packed='' raw
  if [[ $1 == corpora/*/split ]]; then
    raw=${1#corpora/}
    for file in "${raw_folder[${raw%/split}]}"/train*."$source_lang"{.gz,.zst}; do
      [[ ! -e $file ]] || packed=.${file##*.}
    done
    printf '%s\n' "$1"/{dev,test}.{"$source_lang","$target_lang"}"$packed"
    return
  fi
  for file in "$1"/{dev,test}.{"$source_lang","$target_lang"}{,.gz,.zst}; do
    [[ ! -e $file ]] || echo "$file"
  done
}

clean() {  # NAME
  local raw
  raw=$(text_source "$1")
  stage 1 "corpora" --in "$raw" "${held_out_inputs[@]}" ${cleaning:+--in "$cleaning"} \
    --out "corpora/$1/text" \
    -- python -m data_prep.clean --in "$raw" "${languages[@]}" "${held_out[@]}" \
    ${cleaning:+--steps "$cleaning"} ${lines:+--lines "$lines"} --out '{out}'
}

sources() {  # NAME: its training text and what it has without translations
  stage 1 "corpora" --in "${raw_folder[$1]}" --in "corpora/$1/text" "${held_out_inputs[@]}" \
    ${cleaning:+--in "$cleaning"} --out "$(sources_of "$1")" \
    -- python -m data_prep.monolingual --in "${raw_folder[$1]}" --text "corpora/$1/text" \
    "${languages[@]}" "${held_out[@]}" ${cleaning:+--steps "$cleaning"} \
    ${lines:+--lines "$lines"} --out '{out}'
}

join_domains() {  # for the students of all domains: their dev sets choose the checkpoint together
  local name flags=() inputs=()
  for name in "${names[@]}"; do
    flags+=(--text "corpora/$name/text") inputs+=(--in "corpora/$name/text")
  done
  stage 1 "corpora" "${inputs[@]}" --out corpora/all/text \
    -- python -m data_prep.join "${languages[@]}" "${flags[@]}" --out '{out}'
}

prove_no_overlap() {
  local name text texts=() inputs=()
  for name in general "${names[@]}"; do
    text=$(sources_of "$name")
    texts+=("$text") inputs+=(--in "$text")
  done
  stage 1 "corpora" "${inputs[@]}" --out corpora/overlap \
    -- python -m data_prep.overlap "${languages[@]}" --out '{out}' "${texts[@]}"
}

has_monolingual() {  # DOMAIN: whether it has source text without translations
  [[ $1 != general ]] || return 1
  local files=${raw_folder[$1]}/monolingual
  compgen -G "$files*.$source_lang" > /dev/null || compgen -G "$files*.$source_lang.*" > /dev/null
}
sources_of() {  # DOMAIN: text folder with all that a teacher translates for students
  if has_monolingual "$1"; then echo "corpora/$1/sources"; else echo "corpora/$1/text"; fi
}

learn_vocabulary() {
  stage 2 "vocabulary" --in "corpora/general/text" --out vocabulary \
    -- python -m data_prep.vocabulary --train corpora/general/text "${languages[@]}" \
    --size "${chosen_vocabulary_size:-$vocabulary_size}" ${vocabulary_kind:+--kind "$vocabulary_kind"} \
    --out '{out}'
}
