# The quickstart: German to English, general text and Buddhist suttas, on two CPU cores, in a
# quarter of an hour; a real run takes recipes/defaults.sh.

source_lang=de
target_lang=en
source "$recipes/presets/cpu.sh"

# what is taken where no option says otherwise
configuration=${configuration:-1,4,7,9}
if [[ ! $corpora ]]; then
  general=${general:-$recipes/quickstart/data/general}
  (( ${#domains[@]} )) || domains=("suttas=$recipes/quickstart/data/suttas")
fi

most_lines=''            # all that there are
vocabulary_size=3000
speed_seconds=20

common_training+=(--warmup 250 --max-tokens 1200)
teacher_training=("${common_training[@]}" --updates 1000 --epoch-fraction 0.5)
student_training=("${common_training[@]}" --updates 700 --epoch-fraction 0.5)

adaptation=("${common_training[@]}" --updates 400 --lr 0.001 --warmup 100 --epoch-fraction 0.5)
teacher_adaptation=("${adaptation[@]}")
student_adaptation=("${adaptation[@]}")
