"""Learning from images without labels: pairs of views, objectives that compare them, networks that help each other."""
