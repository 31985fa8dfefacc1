"""What frozen models say of texts: computed once, kept by the content of the texts."""
