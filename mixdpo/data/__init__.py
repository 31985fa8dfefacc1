"""Where text comes from, what a table must look like, and the gates that check it."""
