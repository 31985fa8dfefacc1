"""Verbs for people: profiles, the registry, and talking to a policy. Stages are in mixdpo.cli itself."""
