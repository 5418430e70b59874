"""The pipeline: one module a DVC stage.

They run in the order of dvc.yaml:

subset -> train -> explain -> evaluate -> tables -> plots, with ablate and runtime beside them.

Helpers: params (params.yaml, validated), store (every path and file format), backbones (names to
networks), images (splits of images), compose (cut-outs on backgrounds), stage (one way to run a
stage). readme copies the generated table into README.md.
"""
