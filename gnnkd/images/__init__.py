"""The images half: configuration, stages and files of networks that classify images."""
