"""Train the sample's vision transformer: it learns from a teacher, on compositions of the sample.

No pretrained transformer can be had offline. The stage is frozen, its weights are in
the repository; `make distill` repeats it.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from benchmark import backbones, store
from benchmark.compose import Cutout, load_cutouts
from benchmark.images import as_pixels
from benchmark.params import Distill, Params, given
from benchmark.stage import run, seed_of
from benchmark.subset import candidates
from benchmark.train import resume, save
from methods import Backbone

CHUNK = 500
"""Images composed and labelled at a time, and between two points to resume from."""

MASK_CELLS = 7
"""Side of the grid of the random masks."""

HINT = 1.0
"""Weight of the hints: the mean squared error of each, beside the cross entropy."""

Pool = dict[str, Tensor]
"""`images`, uint8 (N, 3, H, W); the teacher's `probabilities` (N, K) and, under the name of each
of its hinting layers, its features (N, C, h, w), float16."""


def main(params: Params) -> None:
    """Write the student's weights, its training curve and its agreement with the teacher."""
    settings = given(params.distill, "distill")
    folder = given(params.subset, "subset").cutouts
    teacher = backbones.build(settings.teacher, params.backbones[settings.teacher])
    spec = params.backbones[settings.student]
    cutouts = load_cutouts(folder)
    work = store.Work(
        "distill",
        [params.seed, settings, params.backbones[settings.teacher], spec.model_copy()],
        [folder / "cutouts.csv"],
    )
    pool = make_pool(settings, cutouts, teacher, params.seed, work)
    torch.manual_seed(params.seed)
    network = backbones.network(settings.student, spec.model_copy(update={"weights": "none"}))
    student = backbones.wrap(settings.student, spec, network)
    curve = fit(student, pool, settings, params.seed, work)
    half = {name: tensor.half() for name, tensor in network.state_dict().items()}
    network.load_state_dict(half)
    held_out = agreement(student, teacher, cutouts, settings.held_out, params.seed)
    with store.replacing(Path(spec.weights)) as beside:
        save_file(half, beside)
    store.write_csv(store.DISTILL / "curve.csv", curve)
    store.write_json(store.DISTILL / "agreement.json", held_out)
    work.done()


def make_pool(
    settings: Distill, cutouts: list[Cutout], teacher: Backbone, seed: int, work: store.Work
) -> Pool:
    """Compositions, a share of them under random masks, and what the teacher makes of them."""
    stream = candidates("distill", cutouts, seed, teacher.size)
    chunks = []
    for start in tqdm(range(0, settings.images, CHUNK), desc="compositions", disable=None):
        path = work.path(f"pool-{start:06d}.safetensors")
        made = [next(stream)[1].pixels for _ in range(min(CHUNK, settings.images - start))]
        if not path.exists():
            images = torch.from_numpy(np.stack(made))
            rng = torch.Generator().manual_seed(seed_of(seed, "distill", "masks", start))
            hidden = torch.rand(len(made), generator=rng) < settings.masked
            masks = random_masks(int(hidden.sum()), teacher.size, rng)
            images[hidden] = (images[hidden] * masks[:, None]).round().byte()
            with store.replacing(path) as beside:
                save_file({"images": images} | answers(settings, teacher, images), beside)
        chunks.append(load_file(path))
    return {name: torch.cat([c[name] for c in chunks]) for name in chunks[0]}


def answers(settings: Distill, teacher: Backbone, images: Tensor) -> dict[str, Tensor]:
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

    def __init__(self, student: Backbone, settings: Distill, pool: Pool) -> None:
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
    student: Backbone, pool: Pool, settings: Distill, seed: int, work: store.Work
) -> pd.DataFrame:
    """Train the student in place: cross entropy with the teacher's probabilities, and hints.

    A share of the patches is dropped, which is faster and regularises; it falls to none at last.
    """
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
    rows = resume(work.path("checkpoint.pt"), parts)
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
        save(work.path("checkpoint.pt"), parts, rows)
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
    stream = candidates("distill-held-out", cutouts, seed, teacher.size)
    same, named, right = [], [], []
    for _ in tqdm(range(math.ceil(count / CHUNK)), desc="agreement", disable=None):
        made = [next(stream)[1] for _ in range(min(CHUNK, count))]
        labels = torch.tensor([c.class_index for c in made])
        images = as_pixels(torch.from_numpy(np.stack([c.pixels for c in made])))
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
