"""What runs the stages of a recipe: bookkeeping of one stage, the graph of all, the plan."""
