# German to English. Sourced by recipes/chain.sh; flags of run.sh win over what stands here.

source_lang=de
target_lang=en
source "$recipes/defaults.sh"
catalogue_domains=(medical it ted)  # what --domain all takes of the catalogue
