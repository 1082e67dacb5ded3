"""Evaluation: does reasoning in memory pay? Questions with known answers, every way to answer them, and the statistics.

What is where: ``suites`` (kinds of data), ``data`` (reading it), ``numbers``, ``latex`` and ``answers`` (finding and
comparing answers), ``statistics``, ``plan`` and ``run`` (asking), ``record`` (the file of answers), ``summary`` (the
numbers out of that file), ``report`` (tables), ``harness`` (for lm-evaluation-harness). The command is
``rim-edge eval``.
"""
