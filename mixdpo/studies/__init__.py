"""Studies: one question each, a grid of small trainings, a table and a picture (method.md §10)."""
