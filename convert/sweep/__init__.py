"""The sweep: one model quantized to many types, each measured against the unquantized file.

What is where: ``plan`` (what is asked for), ``store`` and ``rows`` (the folder and how it resumes), ``asking`` (a model
answers at every readout), ``divergence`` (distances of distributions), ``measure`` (rows of one type), ``quality`` (the
numbers out of the rows), ``speed``, ``slots`` (the precision of the three slot embeddings), ``run`` (all stages in
order), ``pareto`` (front and recommendation), ``table``, ``chart``, ``page`` and ``picture`` (reports).
"""
