"""Knowledge transfer graphs as people write them: what a graph is, the networks it stands for, its run and files."""
