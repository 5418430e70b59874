"""The pipeline: a file here is a stage, a folder is what stages are made of.

Stages run in the order of dvc.yaml: check -> images -> train -> explain -> evaluate, randomise,
ablate, runtime -> tables -> plots -> page. They are thin: they ask the store what is due, read, let
the engine work, and write. No module imports a stage.

    core      parameters, cells and their keys, the store, stages, processes: no computation
    data      images: composed, or decoded; splits; seeds
    engine    the loops of training, explaining, scoring and randomising; devices
    report    statistics, measures, printed tables, figures, the page
    commands  what a person runs beside the pipeline, `python -m benchmark NAME`
"""
