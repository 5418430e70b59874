"""Train the sample's vision transformer: it learns from a teacher, on compositions of the sample.

No pretrained transformer can be had offline. Its weights are in the repository; `make distill`
runs this from the repository's root, which takes an hour, and writes them anew, with the training
curve and the agreement with the teacher.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from benchmark.core import results
from benchmark.core.params import Params
from benchmark.core.stage import run
from benchmark.core.store import Key, Unfinished, digest_json
from benchmark.data.compositions import Cutout, compose_split, load_cutouts
from benchmark.data.seeds import seed_of
from benchmark.data.splits import as_pixels
from benchmark.engine.training import resume, save
from methods import Backbone, build_backbone, build_network, wrap

HERE = Path(__file__).parent

CHUNK = 500
"""Images composed and labelled at a time, and between two points to resume from."""

MASK_CELLS = 7
"""Side of the grid of the random masks."""

HINT = 1.0
"""Weight of the hints: the mean squared error of each, beside the cross entropy."""

Pool = dict[str, Tensor]
"""`images`, uint8 (N, 3, H, W); the teacher's `probabilities` (N, K) and, under the name of each
of its hinting layers, its features (N, C, h, w), float16."""


@dataclass(frozen=True)
class Settings:
    """How the student learns.

    Attributes:
        teacher, student: backbones of params.yaml.
        hints: a layer of the student for each layer of the teacher whose features it learns.
        images: compositions; a share `masked` of them under random masks.
        held_out: compositions to measure the agreement on.
        epochs, batch_size, max_lr, weight_decay: of AdamW with a one-cycle schedule.
        patch_drop: share of the patches that is dropped while it learns.
    """

    teacher: str = "efficientnet_lite0"
    student: str = "vit_sample"
    hints: Mapping[str, str] = field(
        default_factory=lambda: {"blocks.4": "blocks.2", "blocks.6": "blocks.5"}
    )
    images: int = 20_000
    held_out: int = 1000
    masked: float = 0.25
    epochs: int = 12
    batch_size: int = 32
    max_lr: float = 0.002
    weight_decay: float = 0.05
    patch_drop: float = 0.75


def main(params: Params) -> None:
    """Write the student's weights, its training curve and its agreement with the teacher."""
    settings = Settings()
    spec = params.backbones[settings.student].spec
    teacher = build_backbone(settings.teacher, **params.backbones[settings.teacher].spec)
    cutouts = load_cutouts(HERE)
    key = Key(digest_json([params.seed, asdict(settings), spec]), code="")
    work = Unfinished("distill", key)
    pool = make_pool(settings, cutouts, teacher, params.seed, work)
    torch.manual_seed(params.seed)
    made = {name: spec[name] for name in ("source", "model", "arguments")}
    network = build_network(settings.student, weights="none", **made)
    seen = {name: value for name, value in spec.items() if name not in (*made, "weights")}
    hinted = seen | {"trusted": tuple(settings.hints.values())}  # random weights mix places
    student = wrap(network, name=settings.student, **hinted)
    curve = fit(student, pool, settings, params.seed, work)
    half = {name: tensor.half() for name, tensor in network.state_dict().items()}
    network.load_state_dict(half)
    held_out = agreement(student, teacher, cutouts, settings.held_out, params.seed)
    results.write_tensors(Path(spec["weights"]), half)
    results.write_csv(HERE / "distillation.csv", curve)
    results.write_json(HERE / "agreement.json", held_out)
    work.forget()


def make_pool(
    settings: Settings, cutouts: list[Cutout], teacher: Backbone, seed: int, work: Unfinished
) -> Pool:
    """Compositions, a share of them under random masks, and what the teacher makes of them."""
    chunks = []
    for start in tqdm(range(0, settings.images, CHUNK), desc="compositions", disable=None):
        name = f"pool-{start:06d}.safetensors"
        if not work.path(name).exists():
            numbers = range(start, min(start + CHUNK, settings.images))
            images = compose_split("distill", numbers, cutouts, seed, teacher.size).pixels
            rng = torch.Generator().manual_seed(seed_of(seed, "distill", "masks", start))
            hidden = torch.rand(len(images), generator=rng) < settings.masked
            masks = random_masks(int(hidden.sum()), teacher.size, rng)
            images[hidden] = (images[hidden] * masks[:, None]).round().byte()
            with work.replacing(name) as beside:
                save_file({"images": images} | answers(settings, teacher, images), beside)
        chunks.append(load_file(work.path(name)))
    return {name: torch.cat([c[name] for c in chunks]) for name in chunks[0]}


def answers(settings: Settings, teacher: Backbone, images: Tensor) -> dict[str, Tensor]:
    """The teacher's probabilities and hints for uint8 images (N, 3, H, W), float16."""
    parts = []
    with teacher.tap(list(settings.hints)) as features:
        for batch in images.split(50):
            probabilities = teacher.probabilities(as_pixels(batch))
            parts.append({"probabilities": probabilities} | features)
    return {name: torch.cat([p[name] for p in parts]).half().contiguous() for name in parts[0]}


def random_masks(count: int, size: int, rng: torch.Generator) -> Tensor:
    """Smooth masks (count, size, size) in [0, 1]: a random share of the cells of a grid is dark."""
    share = torch.rand(count, 1, 1, generator=rng)
    cells = (torch.rand(count, MASK_CELLS, MASK_CELLS, generator=rng) > share).float()
    return F.interpolate(cells[:, None], size=(size, size), mode="bilinear")[:, 0]


class Dropped(nn.Module):
    """Keeps a random share of the patch tokens of every image, and all prefix tokens.

    Attributes:
        kept: (B, n), the patches kept at the latest call.
    """

    def __init__(self, share: float, prefix_tokens: int) -> None:
        super().__init__()
        self.share = share
        self.prefix_tokens = prefix_tokens
        self.kept = torch.empty(0, 0, dtype=torch.int64)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, prefix + N, D) to (B, prefix + n, D)."""
        prefix, patches = tokens.tensor_split([self.prefix_tokens], dim=1)
        count = max(1, round(patches.shape[1] * (1 - self.share)))
        self.kept = torch.rand(patches.shape[:2]).argsort(dim=1)[:, :count]
        return torch.cat([prefix, taken(patches, self.kept)], dim=1)


def taken(tokens: Tensor, kept: Tensor) -> Tensor:
    """The tokens (B, n, D) at `kept` (B, n) of (B, N, D)."""
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))


class Hints(nn.Module):
    """Linear maps from the student's patch tokens to the teacher's features (FitNets, 1412.6550).

    Features are standardised channel by channel, and resized to the grid of the patches.
    """

    def __init__(self, student: Backbone, settings: Settings, pool: Pool) -> None:
        super().__init__()
        self.layers = settings.hints
        network: Any = student.network
        _, tokens, width = network.pos_embed.shape
        self.grid = math.isqrt(tokens - (student.prefix_tokens or 0))
        self.heads = nn.ModuleList(nn.Linear(width, pool[t].shape[1]) for t in self.layers)
        for i, layer in enumerate(self.layers):
            sample = pool[layer][:CHUNK].float()
            self.register_buffer(f"mean_{i}", sample.mean((0, 2, 3), keepdim=True))
            self.register_buffer(f"std_{i}", sample.std((0, 2, 3), keepdim=True) + 1e-6)

    def forward(
        self, tokens: dict[str, Tensor], kept: Tensor, features: dict[str, Tensor], prefix: int
    ) -> Tensor:
        """Sum over the hints of the mean squared error at the patches kept."""
        loss = torch.zeros(())
        for i, (theirs, own) in enumerate(self.layers.items()):
            target = (features[theirs].float() - self.get_buffer(f"mean_{i}")) / self.get_buffer(
                f"std_{i}"
            )
            target = F.interpolate(target, size=(self.grid, self.grid), mode="bilinear")
            target = taken(target.flatten(2).transpose(1, 2), kept)
            loss = loss + F.mse_loss(self.heads[i](tokens[own][:, prefix:]), target)
        return loss


def fit(
    student: Backbone, pool: Pool, settings: Settings, seed: int, work: Unfinished
) -> pd.DataFrame:
    """Train the student in place: cross entropy with the teacher's probabilities, and hints.

    A share of the patches is dropped, which is faster and regularises; it falls to none at last.
    """
    for layer in settings.hints.values():
        student.use(layer)  # before patches are dropped
    images = pool["images"]
    network, prefix = student.network.train().requires_grad_(True), student.prefix_tokens or 0
    hints = Hints(student, settings, pool)
    dropped = Dropped(settings.patch_drop, prefix)
    network.patch_drop = dropped
    learner = nn.ModuleList([network, hints])
    optimiser = torch.optim.AdamW(parameter_groups(learner, settings.weight_decay))
    total = len(images) // settings.batch_size * settings.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.max_lr, total_steps=total, pct_start=0.1
    )
    parts = {"learner": learner, "optimiser": optimiser, "schedule": schedule}
    rows = resume(work, parts)
    progress = tqdm(total=settings.epochs, initial=len(rows), desc="distill", disable=None)
    for epoch in range(len(rows), settings.epochs):
        dropped.share = settings.patch_drop * (1 - (epoch / max(1, settings.epochs - 1)) ** 4)
        losses = []
        for batch in batches(len(images), settings.batch_size, seed, epoch):
            torch.manual_seed(seed_of(seed, "dropped", epoch, int(batch[0])))
            own = {name: tensor[batch] for name, tensor in pool.items()}
            if epoch % 2:  # a flip fits the features' grid, a shift does not
                own = {n: t if t.ndim == 2 else t.flip(-1) for n, t in own.items()}
            with student.tap(list(settings.hints.values())) as tokens:
                logits = student(as_pixels(own["images"]))
            entropy = F.cross_entropy(logits, own["probabilities"].float())
            hint = hints(tokens, dropped.kept, own, prefix)
            optimiser.zero_grad()
            (entropy + HINT * hint).backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append((float(entropy.detach()), float(hint.detach())))
        mean = np.mean(losses, axis=0).tolist()
        rows.append({"epoch": epoch + 1, "cross_entropy": mean[0], "hints": mean[1]})
        save(work, parts, rows)
        progress.update()
        progress.set_postfix(cross_entropy=f"{mean[0]:.3f}")
    progress.close()
    network.patch_drop = nn.Identity()
    network.eval().requires_grad_(False)
    return pd.DataFrame(rows)


def parameter_groups(learner: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases, norms, tokens and positions."""
    named = dict(learner.named_parameters())
    kept = ("pos_embed", "cls_token", "patch_embed.proj.weight")
    decayed = {n for n, p in named.items() if p.ndim > 1 and not n.endswith(kept)}
    return [
        {"params": [p for n, p in named.items() if n in decayed], "weight_decay": weight_decay},
        {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
    ]


def batches(images: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Indices of the batches of an epoch; a short last batch is dropped."""
    order = np.random.default_rng(seed_of(seed, "distill", epoch)).permutation(images)
    for start in range(0, images - batch_size + 1, batch_size):
        yield torch.from_numpy(order[start : start + batch_size])


def agreement(
    student: Backbone, teacher: Backbone, cutouts: list[Cutout], count: int, seed: int
) -> dict[str, float]:
    """How often student and teacher name the same class, on compositions nobody trained on.

    Returns:
        agreement: per cent of the compositions whose object the teacher names, which is what the
        suite's held-out splits consist of; agreement_all: of all compositions; their numbers
        `named` and `images`; `accuracy`: per cent of all in which the student names the object.
    """
    same, named, right = [], [], []
    for start in tqdm(range(0, count, CHUNK), desc="agreement", disable=None):
        numbers = range(start, min(start + CHUNK, count))
        split = compose_split("distill-held-out", numbers, cutouts, seed, teacher.size)
        labels, images = split.labels, split.images(slice(None))
        theirs = torch.cat([teacher.predict(b) for b in images.split(50)])
        own = torch.cat([student.predict(b) for b in images.split(50)])
        same.append(own == theirs)
        named.append(theirs == labels)
        right.append(own == labels)
    agreed, known = torch.cat(same).float(), torch.cat(named)
    return {
        "agreement": round(float(100 * agreed[known].mean()), 2),
        "agreement_all": round(float(100 * agreed.mean()), 2),
        "accuracy": round(float(100 * torch.cat(right).float().mean()), 2),
        "images": len(agreed),
        "named": int(known.sum()),
    }


if __name__ == "__main__":
    run(main)
