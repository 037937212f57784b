"""Networks that teach each other while they train: nodes, gated edges between them, and the courses that run them."""
