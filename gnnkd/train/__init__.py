"""Training: the one optimisation step, the loop around it, the teacher's stage, checkpoints."""
