"""Data: a name or a file becomes a labelled graph (`graphs`), and with a protocol and a seed a task (`task`)."""
