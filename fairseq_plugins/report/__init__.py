"""What a run brought: table, page, live view."""
