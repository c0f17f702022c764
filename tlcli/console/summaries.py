"""Print the summary of each command from its result."""

from __future__ import annotations

import shlex
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tlcli.console.evaluation import calibration, confusion_table, slices_table
from tlcli.console.terminal import Terminal, printable
from tlcli.datasets.class_names import in_reading_order
from tlcli.datasets.image_files import describe_skipped
from tlcli.inference import outcomes
from tlcli.inference.held_out import describe_groups, describe_method, describe_near_copies, describe_unlabeled
from tlcli.storage.files import megabytes

SHOWN_CLASSES = 30
SHOWN_CONFUSIONS = 5
SHOWN_FAILURES = 5
TRUST_LEVELS = (0.5, 0.9, 0.99)
"""Confidences listed under `Trust`."""


def percent(fraction: float | None) -> str:
    """Format a fraction in [0, 1] as a percentage; None as a dash."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def quoted(path: str) -> str:
    """Quote a path for the shell."""
    return shlex.quote(path)


def finetune_summary(terminal: Terminal, info: dict[str, Any]) -> None:
    """Print how accurate the classifier is, where it is, and what to run next."""
    validation, test = info["validation"], info["test"]
    seconds = info["seconds"]
    if info["training"] is None:
        _head(terminal, info)
    elif len(info["training"]["tried"]) > 1:
        depths_table(terminal, info)
    else:
        _tail(terminal, info)
    terminal.note("")
    _accuracy(terminal, "Accuracy", validation, describe_method(validation))
    for line in [*describe_groups(validation), *filter(None, [describe_unlabeled(validation)])]:
        terminal.note(f"          {line}")
    if test is not None:
        _accuracy(terminal, "Test", test, "test")
    for comparison in outcomes.describe_comparisons(info):
        terminal.note(comparison)
    for name, metrics in (("validation", validation), ("test", test)):
        if metrics and (warning := describe_near_copies(metrics)):
            terminal.warn(f"{name}: {warning}")
    evaluated = test or validation
    per_class_table(terminal, evaluated)
    confusion_line(terminal, evaluated, info["classes"])
    trust_line(terminal, evaluated)
    if forecast := outcomes.describe_forecast(info):
        terminal.note(f"More      {forecast}")
    if "novelty" in info and info["novelty"] is None:  # not in a run of an older version
        terminal.note(
            "Unknown   images unlike the training images cannot be recognized: too few images, or no feature vector"
        )
    run = quoted(info["run"])
    terminal.note(f"Run       {run}     report: {quoted(info['run'] + '/report.html')}")
    if info.get("was_finished"):
        terminal.note(f"Time      finished earlier, in {seconds['total']:.1f} s")
    else:
        rest = terminal.elapsed() - seconds["features"] - seconds["training"]
        terminal.note(
            f"Time      {terminal.elapsed():.1f} s: features {seconds['features']:.1f}, "
            f"training {seconds['training']:.1f}, startup and other {rest:.1f}"
        )
    terminal.note(f"Next      tlcli predict {run} IMAGES --min-confidence {TRUST_LEVELS[1]} --out labels.csv")


def _head(terminal: Terminal, info: dict[str, Any]) -> None:
    """Print what was trained if all layers before the head were frozen."""
    head, validation, images = info["head"], info["validation"], info["images"]
    if validation["method"] == "holdout":
        how = f"chosen on {validation['images']:,} held-out images"
        if info.get("refitted"):
            how += f", refitted on all {images['train'] + images['validation']:,}"
    else:
        how = f"{validation['method']}, refitted on all {images['train']:,}"
    terminal.note(f"          {head['parameters']:,} parameters, L2 {head['l2']:.2g}, {how}")


def _tail(terminal: Terminal, info: dict[str, Any]) -> None:
    """Print what was trained if `--freeze` names one depth."""
    tried = info["training"]["tried"][0]
    best = f"best after epoch {tried['best_epoch']} of {tried['epochs']}"
    if not tried["best_epoch"]:
        start = "the run" if info.get("parents") else "the head alone"
        best = f"no epoch improved on {start}, which is kept (try a lower --learning-rate, or --augment)"
    terminal.note(f"          {tried['parameters']:,} parameters trained, {best}")


def depths_table(terminal: Terminal, info: dict[str, Any]) -> None:
    """Print the depths that `--freeze auto` tried, with their parameters, epochs, validation results and seconds."""
    training, of = info["training"], info["freeze"]["of"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("  frozen up to", no_wrap=True)
    for name in ("trained", "epochs", "validation", "lower loss by", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for number, row in enumerate(training["tried"]):
        table.add_row(
            f"  {outcomes.depth_name(row, of)}",
            f"{row['parameters'] / 1e6:.2f} M",
            str(row["epochs"] or "-"),
            f"{100 * row['accuracy']:.1f} ± {100 * row['error']:.1f} %",
            "" if row["gain"] is None else f"{row['gain']:.3f} ± {row['gain_error']:.3f}",
            f"{row['seconds']:.0f}",
            "kept" if number == training["best"] else "",
            style="green" if number == training["best"] else "",
        )
    terminal.console.print(table)
    folds, kept = training.get("folds"), training["tried"][training["best"]]
    epochs, images = training.get("refit_epochs"), info["images"]["train"] + info["images"]["validation"]
    if folds and kept["epochs"]:
        then = f"then trained again, on all {images:,} images" if epochs else "the network is that of the first fold"
        terminal.note(f"  measured on {folds} folds; {then}")
    elif epochs:
        more = f"{epochs} more epoch{'s' * (epochs > 1)}"
        terminal.note(f"  then trained for {more} on all {images:,} images; the accuracy is from before that")
    if choice := outcomes.describe_depth_choice(info):
        terminal.note(f"Chosen    {choice}")


def _accuracy(terminal: Terminal, name: str, metrics: dict[str, Any], split: str) -> None:
    low, high = metrics["interval"]
    majority = metrics["majority"]
    line = Text(f"{name:<9} ")
    line.append(percent(metrics["accuracy"]), style="bold green")
    line.append(
        f" ({100 * low:.1f} to {100 * high:.1f}, {split}, {metrics['images']:,} images)   "
        f'balanced {percent(metrics["balanced_accuracy"])}   always "{printable(majority["name"])}" '
        f"{percent(majority['accuracy'])}"
    )
    terminal.console.print(line)


def trust_line(terminal: Terminal, metrics: dict[str, Any]) -> None:
    """Print the share of images that reach each confidence, and their accuracy."""
    rows = [row for row in metrics["confidence"] if row["threshold"] in TRUST_LEVELS and row["accuracy"] is not None]
    for name, row in zip(["Trust", "", ""], rows, strict=False):
        terminal.note(
            f"{name:<9} confidence {row['threshold']:.2f} or more: {percent(row['share']):>7} of images, "
            f"{percent(row['accuracy']):>7} correct"
        )


def per_class_table(terminal: Terminal, metrics: dict[str, Any]) -> None:
    """Print precision and recall per class, with the weakest marked; of many classes, only the weakest."""
    rows = [(name, row) for name, row in in_reading_order(metrics["per_class"]).items() if row["images"]]
    if not rows:
        return
    weakest = min(rows, key=lambda pair: pair[1]["f1"] or 0)[0]
    if len(rows) > SHOWN_CLASSES:
        rows = sorted(rows, key=lambda pair: pair[1]["f1"] or 0)[:SHOWN_CLASSES]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("  class")
    for name in ("images", "precision", "recall"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, row in rows:
        marked = name == weakest and len(rows) > 1 and (row["f1"] or 0) < 1
        table.add_row(
            Text(f"  {printable(name)}"),
            f"{row['images']:,}",
            percent(row["precision"]),
            percent(row["recall"]),
            "weakest" if marked else "",
            style="yellow" if marked else "",
        )
    terminal.console.print(table)
    left_out = sum(1 for row in metrics["per_class"].values() if row["images"]) - len(rows)
    if left_out:
        terminal.note(f"  ... and {left_out} classes with higher F1")


def confusion_line(terminal: Terminal, metrics: dict[str, Any], classes: list[str]) -> None:
    """Print the most frequent errors."""
    pairs = [
        (count, classes[truth], classes[predicted])
        for truth, row in enumerate(metrics["confusion"])
        for predicted, count in enumerate(row)
        if count and truth != predicted
    ]
    if pairs:
        worst = sorted(pairs, key=lambda pair: -pair[0])[:SHOWN_CONFUSIONS]
        named = (f"{truth} as {predicted} ({count})" for count, truth, predicted in worst)
        terminal.note("Confused  " + ", ".join(named))


def evaluate_summary(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print the metrics of the run on these images."""
    for failure in result["failures"][:SHOWN_FAILURES]:
        terminal.note(f"  failed: {failure['path']}: {failure['error']}")
    _accuracy(terminal, "Accuracy", result, result["split"])
    per_class_table(terminal, result)
    confusion_table(terminal, result["confusion"], result["classes"])
    confusion_line(terminal, result, result["classes"])
    calibration(terminal, result)
    if unknown := result.get("unknown"):
        terminal.note(
            f"Unknown   {unknown['images']:,} of {result['images']:,} images look unlike the training images "
            f"(expected of images of the known kind: about {percent(unknown['rate'])})"
        )
    slices_table(terminal, result)
    top5 = f", top-5 {percent(result['top5_accuracy'])}" if len(result["classes"]) > 5 else ""  # else always 100 %
    terminal.note(f"Loss      {result['loss']:.3f}{top5}     {terminal.elapsed():.1f} s")


def predict_summary(terminal: Terminal, result: dict[str, Any], failures: list[tuple[str, str]]) -> None:
    """Print the number of images per class, the failures, and the path of the rows."""
    parts = [f"{name} {count:,}" for name, count in list(result["labels"].items())[:10]]
    if len(result["labels"]) > 10:
        parts.append(f"... {len(result['labels']) - 10} more classes")
    parts += [f"{name} {result[name]:,}" for name in ("review", "unknown", "failed") if result[name]]
    images = "1 image" if result["images"] == 1 else f"{result['images']:,} images"
    terminal.note(f"{images}   {'   '.join(parts)}   {terminal.elapsed():.1f} s")
    for path, reason in failures:
        terminal.note(f"  failed: {path}: {reason}")
    if result["failed"] > len(failures):
        terminal.note(f"  ... and {result['failed'] - len(failures):,} more")
    if result["skipped"]:
        terminal.note(f"  skipped: {describe_skipped(result['skipped'])}")
    if result["out"] not in {None, "-"}:
        terminal.note(f"{quoted(result['out'])}: {result['images']:,} rows")
    if explained := result["explained"]:
        of = f" of {result['images']:,}" if explained["images"] < result["images"] else ""
        left_out = f", {explained['skipped']:,} skipped" if explained["skipped"] else ""
        what = "image" if result["images"] == 1 else "images"
        terminal.note(f"{quoted(explained['out'])}: {explained['images']:,}{of} {what} explained{left_out}")


def cache_features_summary(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print what was computed, and the path of the cache."""
    views = f", train also in {result['views']} augmented views" if result["views"] else ""
    terminal.note(
        f"{result['images']:,} images{views}: {result['computed']:,} computed, {result['reused']:,} reused, "
        f"{result['failed']:,} failed   {result['seconds']:.1f} s"
    )
    terminal.note(f"Cache     {quoted(result['cache'])}   {megabytes(result['bytes'])}")


def prune_summary(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print which caches were removed, and which were in use."""
    for cache in result["busy"]:
        terminal.warn(f"{cache['directory']} is in use by another tlcli process and was not removed.")
    count = len(result["removed"])
    terminal.note(f"Removed {count} {'cache' if count == 1 else 'caches'}, {megabytes(result['bytes'])}")


def augment_summary(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print what was written, what failed, and what to run next."""
    for failure in result["failures"][:SHOWN_FAILURES]:
        terminal.note(f"  failed: {failure['path']}: {failure['error']}")
    if result["failed"] > SHOWN_FAILURES:
        terminal.note(f"  ... and {result['failed'] - SHOWN_FAILURES:,} more")
    if result["preview"] is not None:
        terminal.note(f"Preview   {quoted(result['preview'])}")
    if result["out"] is None:
        return
    splits = ", ".join(f"{name} {count:,}" for name, count in result["splits"].items())
    finished = "finished earlier" if result.get("was_finished") else f"{terminal.elapsed():.1f} s"
    terminal.note(f"{result['written']:,} images: {splits}   {finished}")
    out = quoted(result["out"])
    terminal.note(f"Dataset   {out}     origin of each image: {quoted(result['out'] + '/manifest.csv')}")
    terminal.note(f"Next      tlcli finetune {out}")


def export_summary(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print how closely the export agrees with the run, and its path."""
    limits = result["tolerance"]
    most = "" if limits["max_difference"] is None else f" (at most {limits['max_difference']:g})"
    least = "" if not limits["agreement"] else f" (at least {100 * limits['agreement']:.0f} %)"
    terminal.note(
        f"Compared  {result['images']:,} images: probabilities differ by up to {result['max_difference']:.2g}{most}, "
        f"{percent(result['agreement'])} of labels agree{least}"
    )
    if result["int8"]:
        before, after = result["int8"]["accuracy_before"], result["int8"]["accuracy_after"]
        trained = result["images"] - result["held_out"]
        seen = f"; {trained:,} of these are training images" if trained else ", on held-out images"
        terminal.note(f"Accuracy  {percent(before)} before, {percent(after)} in 8 bits{seen}")
    terminal.note(f"Written   {quoted(result['out'])}, {megabytes(result['bytes'])}   {result['seconds']:.1f} s")


def announce_server(terminal: Terminal, url: str, token: str | None, stopping: str) -> None:
    """Print the address of a server as a line of JSON on standard output; and, for people, how to stop it."""
    terminal.line({"url": url, "token": token})
    terminal.note(f"Open      {url}")
    terminal.note(f"          {stopping}")
