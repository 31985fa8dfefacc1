"""Judging a run: what policies think of held-out pairs, what they write, who is served (method.md §9)."""
