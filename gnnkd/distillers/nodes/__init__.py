"""Methods of networks of nodes and rows alone, one module each; the names of some are those of methods on images."""
