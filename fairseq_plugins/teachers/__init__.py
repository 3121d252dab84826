"""Where a teacher's distribution over the target vocabulary comes from."""
