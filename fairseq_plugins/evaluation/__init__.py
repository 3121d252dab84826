"""Score, compare, measure speed."""
