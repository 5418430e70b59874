"""The pipeline: one module a DVC stage.

They run in the order of dvc.yaml:

subset -> train -> explain -> evaluate -> tables -> plots, with ablate and runtime beside them.

Helpers: params (params.yaml, validated), store (every path and file format), backbones (names to
networks), images (splits of images), compose (cut-outs on backgrounds), statistics (of per-image
scores), stage (one way to run a stage). Outside the pipeline: speed compares with other libraries,
readme copies the generated tables into README.md.
"""
