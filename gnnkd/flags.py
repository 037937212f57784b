"""The words of the command line and the configuration file."""

from __future__ import annotations

MODES = ("tea", "stu", "tea/stu")
SHORT = {"teacher": "teacher_model", "student": "student_model"}
NAMED = {"teacher": "teacher_model", "student": "student_model", "method": "method"}
"""Groups that are also names: `method: kd`, or `method: {name: kd, alpha: 0.5}`."""

VALUES = {
    "dataset": (
        "NAME",
        "cora, citeseer, pubmed, amazon-photo, amazon-computers, coauthor-cs, coauthor-physics, ogbn-arxiv, "
        "ogbn-products, digits, or the path of a graph's .npz file (digits)",
    ),
    "teacher_model": ("NAME", "gcn, gat, sage, gcnii, appnp, sgc, monet, mlp (gcn); short: --teacher"),
    "teacher_logits": ("FILE", "a trained teacher's logits [nodes, classes] in an .npy file, instead of a teacher"),
    "student_model": ("NAME", "mlp, gcn, gat, sage, gcnii, appnp, sgc, monet (mlp); short: --student"),
    "method": ("NAME", "dgd, glnn, kd, supervised (dgd)"),
    "mode": ("MODE", "tea trains the teacher, stu the student, tea/stu both (tea/stu)"),
    "split": ("NAME", "public, ogb, given, cpf, random (the first of these that the data has)"),
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
    "overwrite": "run again what is there already",
    "quiet": "print the results only",
}
