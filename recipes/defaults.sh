# Numbers of a real run, shared by the language pairs. Where nothing else is said they are
# those of Gordon & Duh (2020); a pair's config.sh may set others after sourcing this file.

student_size=small
default_teacher_size=large

jobs_at_once=auto        # stages side by side; auto: as many as cores, GPUs and memory allow

vocabulary_size=30000    # pieces of the joint vocabulary (the paper: 30k for each language)
teacher_beam=12          # beam that makes distilled data
teacher_compute_type=''   # of distilling; unset: float16 on a GPU, float32 on a CPU
risk_candidates=8        # translations of a line that minimum-risk training weighs
score_beam=5             # beam that the scores are measured with; greedy is added
export_type=int8         # CTranslate2 weights of what is scored and shipped
export_max_loss=0.5      # BLEU on dev that a shipped model may lose against fairseq's float32
speed_seconds=60         # about how long speed is measured, all models of a domain together

# the same for every model: rate, batch, dropout, patience; validation twice per pass
common_training=(
  --schedule fixed --lr 0.0002 --warmup 1     # Adam, constant rate
  --max-tokens 4096                           # tokens per batch
  --dropout 0.1
  --patience 10                               # validations without a better dev BLEU
  --valid-beam 5
  --seed 1
)
teacher_training=("${common_training[@]}" --updates 300000 --epoch-fraction 0.5)
student_training=("${common_training[@]}" --updates 300000 --epoch-fraction 0.5)

# adapting: the same rate (the paper's), a quarter of a pass between validations
teacher_adaptation=("${common_training[@]}" --updates 100000 --epoch-fraction 0.25)
student_adaptation=("${common_training[@]}" --updates 100000 --epoch-fraction 0.25)

# minimum-risk training goes on from a finished student: a low rate, few updates
student_risk=("${common_training[@]}" --lr 0.00005 --updates 20000 --epoch-fraction 0.25)

# the last fine-tune on references, with --final: as low
student_final=("${common_training[@]}" --lr 0.00005 --updates 20000 --epoch-fraction 0.25)
