"""The run that training continues from (`--backbone RUN`): which of its classes remain, and its head.

Shapes: k classes of DATA, D features before the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcli.backbones.heads import head_modules, head_names
from tlcli.datasets.splits import DEFAULT_VALIDATION_FRACTION
from tlcli.errors import UsageError
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.storage.files import portable_name
from tlcli.storage.urls import absolute
from tlcli.training.usable_images import UsableImages

SHOWN = 5
"""Names of classes that a message lists."""


@dataclass(frozen=True)
class Parent:
    """The run that training continues from."""

    run: Run
    path: str
    """The run, as given by the user."""
    before: tuple[str | None, ...]
    """[k], the name that each class of DATA has in the run; None for a new class."""

    @cached_property
    def trained_on(self) -> frozenset[bytes]:
        """Digests of the images that the run's final weights were trained on."""
        return frozenset(digest for digest, split in self.run.splits().items() if split == "train")

    def chain(self) -> list[dict[str, Any]]:
        """Return the run and those that it continues from, the latest first, for `parents` of `run.json`."""
        info = self.run.info
        own = {
            "path": portable_name(self.path),
            "location": portable_name(absolute(self.path)),
            "sha256": info["sha256"],
            "created": info["created"],
            "freeze": info["freeze"],
        }
        return [own, *info.get("parents", [])]

    def inherit_splits(self, images: UsableImages) -> UsableImages:
        """Return the images with those in train that the run was trained on, and those in validation that it held out.

        Other images stay where they are, unless they are in a group with one of these. Nothing changes if DATA has
        validation images, if folds are used, if the run held out no images, or if nothing could be held out.
        """
        known, splits = self.run.splits(), images.splits
        if splits.cross_validated or images.dataset.has_split("validation") or "validation" not in known.values():
            return images
        inherited: dict[str, str] = {}
        for digest, key in zip(splits.digests, splits.keys, strict=True):
            if (split := known.get(digest)) in {"train", "validation"}:
                inherited[key] = "train" if "train" in {split, inherited.get(key)} else "validation"
        samples = tuple(
            sample if sample.split == "test" else replace(sample, split=inherited.get(key, sample.split))
            for sample, key in zip(splits.samples, splits.keys, strict=True)
        )
        trained = {sample.label for sample in samples if sample.split == "train"}
        if "validation" not in {sample.split for sample in samples} or len(trained) < images.classes:
            return images
        return replace(images, splits=replace(splits, samples=samples))

    def seen(self, images: UsableImages) -> int:
        """Return how many of the images that are held out now the run was trained on."""
        held_out = images.rows("train" if images.splits.cross_validated else "validation") + images.rows("test")
        return len(self.trained_on.intersection(images.digests(held_out)))

    def warn_if_seen(self, images: UsableImages, report: Reporter) -> None:
        """Warn if layers of the run were trained on images that are held out now: they remember the labels."""
        info, seen = self.run.info, self.seen(images)
        if not seen or all(run["freeze"]["layer"] == run["freeze"]["of"] for run in self.chain()):
            return
        advice = "Evaluate it on other images"
        if info["validation"]["method"] == "holdout" and not images.dataset.has_split("validation"):
            fraction = info["settings"]["validation_fraction"] or DEFAULT_VALIDATION_FRACTION
            advice = f"Hold out the same images as {self.path}, with --validation-fraction {fraction:g}"
        report.warn(
            f"{seen:,} images that are held out were training images of {self.path}, whose layers were trained: the "
            f"reported accuracy is too high. {advice}."
        )

    def continue_head(self, model: nn.Module, log_prior: NDArray[np.float64] | None) -> None:
        """Write the run's head into the network, for the classes that remain, at its calibrated scale.

        New classes keep their rows of the network's head, shifted with the others: a softmax ignores what is added to
        all classes, so two heads can be combined only relative to the classes that they share.

        Args:
            model: The network, with a head for k classes.
            log_prior: float [k], which training adds to the logits; None adds nothing.

        Raises:
            ArtifactError: The run's weights were changed.
        """
        kept = [new for new, name in enumerate(self.before) if name is not None]
        old = [self.run.classes.index(name) for name in self.before if name is not None]
        if not kept:
            return
        shift = np.zeros(len(kept)) if self.run.log_prior is None else self.run.log_prior[old]
        shift = shift if log_prior is None else shift - log_prior[kept]
        weights = self.run.weights()
        with torch.no_grad():
            for name, head in zip(head_names(model), head_modules(model), strict=True):
                weight = weights[f"{name}.weight"][old] / self.run.temperature
                _write_rows(head.weight, kept, weight)
                if head.bias is not None:
                    bias = weights[f"{name}.bias"][old] / self.run.temperature
                    _write_rows(head.bias, kept, bias + torch.from_numpy(shift))

    def describe_classes(self, classes: Sequence[str], report: Reporter) -> None:
        """Report which classes of DATA are in the run, which are new, and which of the run's are dropped."""
        new = [name for name, before in zip(classes, self.before, strict=True) if before is None]
        renamed = [
            f"{before} to {name}"
            for name, before in zip(classes, self.before, strict=True)
            if before not in {None, name}
        ]
        dropped = [name for name in self.run.classes if name not in self.before]
        parts = [f"{len(classes) - len(new)} of {self.path}"]
        for names, what in ((renamed, "renamed"), (new, "new"), (dropped, "dropped")):
            if names:
                more = ", ..." if len(names) > SHOWN else ""
                parts.append(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
        report.note(f"Classes   {'; '.join(parts)}")


def _write_rows(own: torch.Tensor, rows: list[int], values: torch.Tensor) -> None:
    """Replace some rows of a head, and shift the others as much as these are shifted on average."""
    values = values.reshape(-1, *own.shape[1:]).to(own)
    own += values.mean(0) - own[rows].mean(0)
    own[rows] = values


def names_before(run: Run, classes: Sequence[str], renames: Sequence[str]) -> tuple[str | None, ...]:
    """Return the name that each class of DATA has in a run; None for a new class.

    Args:
        run: The run that training continues from.
        classes: [k], the classes of DATA.
        renames: The values of `--rename`, OLD=NEW. Names may contain `=`.

    Raises:
        UsageError: OLD is not a class of the run, NEW is not a class of DATA, or two classes would become one.
    """
    old_names: dict[str, str] = {}
    for text in renames:
        parts = text.split("=")
        pairs = [("=".join(parts[:place]), "=".join(parts[place:])) for place in range(1, len(parts))]
        found = [(old, new) for old, new in pairs if old in run.classes and new in classes]
        if len(found) != 1:
            raise UsageError(
                f"--rename {text}: expected OLD=NEW with a class of the run ({', '.join(run.classes)}) and a class of "
                f"DATA ({', '.join(classes)})."
            )
        ((old, new),) = found
        if new in old_names or old in old_names.values():
            raise UsageError(f"--rename {text}: {new if new in old_names else old} is renamed twice.")
        old_names[new] = old
    for new, old in old_names.items():
        if new in run.classes and new not in old_names.values():
            raise UsageError(
                f"--rename {old}={new}: the run already has a class {new}, so two classes would become one. Rename "
                f"{new} as well, or leave the option out: a class that DATA lacks is dropped."
            )
    left = {name for name in run.classes if name not in old_names.values()}
    return tuple(old_names.get(name, name if name in left else None) for name in classes)
