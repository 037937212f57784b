"""Methods beside one another on the same data, seeds, teachers and students: `python -m gnnkd.compare`."""
