"""Score, measure speed, compare, report."""
