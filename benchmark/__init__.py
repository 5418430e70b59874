"""The pipeline: one module a DVC stage.

They run in the order of dvc.yaml:

subset -> train -> explain -> evaluate -> tables -> plots -> page

with randomise, ablate and runtime beside them. Before them, sources lists the files each is made
of; distill, once, trained the sample's transformer.

Instead of subset, which composes the sample, the other profiles have photographs, which decodes
what index has listed.

Helpers: params (params.yaml, validated), store (every path and file format), backbones (names to
networks), images (splits of images), decoding (photographs from files), compose (cut-outs on
backgrounds), statistics (of per-image scores), measures (what the scores are), printed (which
tables people read), rendering (a table as CSV, Markdown and LaTeX), stage (one way to run a stage),
devices (precision and memory), processes (who they are and what they share), parallel (a training
step of several), warm (a process that has the libraries loaded).

Outside the pipeline: compare scores an explainer of one's own among the stored results, track keeps
and compares the runtime over commits, plan says what a profile will take, layers suggests the
layers of a network, convert reads the authors' checkpoints, speed compares with other libraries,
readme copies the generated tables into README.md.
"""
