"""Classifier reward models: labelled texts → models → scores → annotators with styles who label pairs."""
