# The experiment that the jobs of this folder run. Copy this file, edit the copy, and name it to
# submit.sh; paths are relative to the checkout, which the nodes must share, like the run's folder.

work=runs/de-en                 # folder of the run
domains=(medical it)            # each gets a job of its own once the general models are there
teacher_nodes=2                 # machines that train the general teacher together, 4 GPUs each
distil_nodes=4                  # machines that translate for the general students, 4 GPUs each

# flags of the chain; every job runs a part of it
experiment=(
  bash recipes/de-en/run.sh --work "$work" --general my/general
  --domain medical=my/medical --domain it=my/it --configuration 1,4,7,9
)
