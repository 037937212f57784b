"""The words of the command line and the configuration file."""

from __future__ import annotations

MODES = ("tea", "stu", "tea/stu")
SHORT = {"teacher": "teacher_model", "student": "student_model"}
NAMED = {"teacher": "teacher_model", "student": "student_model", "method": "method"}
"""Groups that are also names: `method: kd`, or `method: {name: kd, alpha: 0.5}`."""
OPTIONS = {"val_fraction": ("data", "val_fraction")}
"""Flags that are short for an option of a group."""

VALUES = {
    "dataset": (
        "NAME",
        "graphs: cora, citeseer, pubmed, amazon-photo, amazon-computers, coauthor-cs, coauthor-physics, ogbn-arxiv, "
        "ogbn-products, synth-arxiv, synth-products, or the path of a graph's .npz file; images: cifar10, cifar100, "
        "tiny-imagenet, or the path of a folder of class folders; either: digits, an image dataset if the network "
        "named is one of images, and digits-graph, digits-images (digits)",
    ),
    "teacher_model": (
        "NAME",
        "graphs: gcn, gat, sage, gcnii, appnp, sgc, tag, monet, mlp (gcn); images: cnn, resnet20, resnet32x4, "
        "wrn_40_2, vgg13, ... (by dataset); short: --teacher",
    ),
    "teacher_logits": ("FILE", "a trained teacher's logits [nodes, classes] in an .npy file, instead of a teacher"),
    "teacher_weights": ("FILE", "a published checkpoint of teacher_model, instead of a training; images only"),
    "student_model": (
        "NAME",
        "graphs: mlp, gcn, gat, sage, gcnii, appnp, sgc, tag, monet (mlp); images: as for the teacher, or cnn_small, "
        "resnet8x4, mobilenetv2, ...; short: --student",
    ),
    "method": (
        "NAME",
        "graphs: adagmlp, at, cpf, dgd, ffg2m, fitnet, gaglnn, gcrd, gkdfd, glnn, graphakd, gsp, hgmd, kd, krd, lsp, "
        "nosmog, pnd, rkd, sp, supervised, tinygnn, vqgraph (dgd); images: at, crd, dist, dkd, dot, edkd, fitnet, gkd, "
        "gkdfd, kd, kdsvd, logitstd, nst, ofd, pkt, reviewkd, rkd, sp, supervised, vid (kd); dot(gkd) is dot with "
        "method.base=gkd",
    ),
    "mode": ("MODE", "tea trains the teacher, stu the student, tea/stu both (tea/stu)"),
    "split": ("NAME", "public, ogb, given, cpf, random (the first of these that the data has)"),
    "val_fraction": (
        "X",
        "share of the training images that validate, 0 to 0.5 (0.1); images only",
    ),
    "setting": ("NAME", "tran: every node is seen in training; ind: a fifth of the test nodes is not (tran)"),
    "seed": ("K", "one seed, for split, initialisation and dropout (0)"),
    "seeds": ("N", "seeds 0 to N-1; also 10-19 or 3,5,7"),
    "data_root": ("DIR", "folder of the raw data ($GNNKD_DATA, or a cache folder of yours)"),
    "out": ("DIR", "folder of the results (runs)"),
    "tag": ("NAME", "keeps a second configuration beside the first"),
    "device": ("NAME", "auto, cpu, cuda (auto)"),
}
SWITCHES = {
    "resume": "continue an interrupted run",
    "best_on_test": "images only: also report the best epoch by test accuracy, for comparison with the literature only",
    "overwrite": "run again what is there already",
    "quiet": "print the results only",
    "tensorboard": "write TensorBoard's files beside the results (pip install 'gnnkd[log]')",
}
