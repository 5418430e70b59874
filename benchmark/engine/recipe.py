"""How an attention mechanism is trained, in parameters."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]

Precision = Literal["float32", "bfloat16", "float16"]
"""What matrix products and convolutions are computed in; the rest stays float32 (autocast)."""


class Recipe(BaseModel):
    """An optimiser with a one-cycle schedule.

    `images` is how many of the training images are used, the first ones; all if null. The curve has
    a row, a mean, every `log_every` steps. `precision` is that of the forward passes. `momentum` is
    Nesterov's with `sgd`, plain with `rmsprop`, and nothing to `adam` and `adamw`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Positive | None = None
    log_every: Positive = 1
    precision: Precision = "float32"
    epochs: Positive
    batch_size: Positive
    optimiser: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    max_lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
