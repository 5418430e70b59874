"""What a person runs beside the pipeline: `python -m benchmark NAME`."""
