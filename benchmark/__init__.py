"""The pipeline: one module a DVC stage.

They run in the order of dvc.yaml:

subset -> train -> explain -> evaluate -> tables -> plots, with randomise, ablate and runtime beside
them. Before them, sources lists the files each is made of; distill, once, trained the sample's
transformer.

Helpers: params (params.yaml, validated), store (every path and file format), backbones (names to
networks), images (splits of images), compose (cut-outs on backgrounds), statistics (of per-image
scores), stage (one way to run a stage), warm (a process that has the libraries loaded). Outside
the pipeline: speed compares with other libraries, readme copies the generated tables into
README.md, layers suggests the layers of a network, convert reads the authors' checkpoints.
"""
