# The quickstart: German to English, general text and Buddhist suttas, on two CPU cores.
# Sizes and updates fit into a quarter of an hour; a real run takes recipes/defaults.sh.

source_lang=de
target_lang=en

student_size=miniature
default_teacher_size=miniature_teacher

jobs_at_once=auto        # stages side by side; auto: as many as cores, GPUs and memory allow

vocabulary_size=3000
teacher_beam=5
teacher_compute_type=int8
risk_candidates=5
score_beam=5
export_type=int8
export_max_loss=0.5
speed_seconds=20

common_training=(
  --schedule inverse_sqrt --lr 0.002 --warmup 250
  --max-tokens 1200        # small batches: many updates in little time
  --data-workers 0
  --dropout 0.1
  --patience 0             # no early stop: every configuration gets the same updates
  --valid-beam 1           # dev text is decoded greedily only
  --seed 1
)
teacher_training=("${common_training[@]}" --updates 1000 --epoch-fraction 0.5)
student_training=("${common_training[@]}" --updates 700 --epoch-fraction 0.5)

teacher_adaptation=("${common_training[@]}" --updates 400 --lr 0.001 --warmup 100 --epoch-fraction 0.5)
student_adaptation=("${common_training[@]}" --updates 400 --lr 0.001 --warmup 100 --epoch-fraction 0.5)
student_risk=("${common_training[@]}" --updates 100 --lr 0.0003 --warmup 20 --epoch-fraction 0.5)
student_final=("${common_training[@]}" --updates 100 --lr 0.0003 --warmup 20 --epoch-fraction 0.5)
