# Model sizes: flags of fairseq's `transformer` by name.
#
# tiny, small, medium, large: layers, width and feed-forward width of Gordon & Duh
# (2020), 8 heads. All embeddings are tied, unlike the paper's: with untied ones a
# tiny student is mostly embeddings. Pre-norm, which trains without a long warm-up.
# The two miniatures are for demonstrations on a CPU only.

size_flags() {  # NAME -> array `shape`
  local layers width ffn heads
  case $1 in
    large)             layers=6 width=512 ffn=2048 heads=8 ;;
    medium)            layers=3 width=512 ffn=2048 heads=8 ;;
    small)             layers=3 width=256 ffn=1024 heads=8 ;;
    tiny)              layers=1 width=256 ffn=1024 heads=8 ;;
    miniature-teacher) layers=2 width=256 ffn=1024 heads=4 ;;
    miniature)         layers=1 width=96 ffn=384 heads=4 ;;
    *)
      echo "size '$1' is unknown; there are large, medium, small, tiny, miniature-teacher, miniature" >&2
      return 1 ;;
  esac
  shape=(
    --arch transformer --share-all-embeddings
    --encoder-layers "$layers" --decoder-layers "$layers"
    --encoder-embed-dim "$width" --decoder-embed-dim "$width"
    --encoder-ffn-embed-dim "$ffn" --decoder-ffn-embed-dim "$ffn"
    --encoder-attention-heads "$heads" --decoder-attention-heads "$heads"
    --encoder-normalize-before --decoder-normalize-before
  )
}
