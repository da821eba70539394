"""Tasks: reading, checking and converting task rows, and deciding which comes next."""
