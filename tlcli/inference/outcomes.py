"""Describe in words what training chose and cost, and what more images would bring, from `run.json`. Torch-free."""

from __future__ import annotations

from typing import Any


def depth_name(row: dict[str, Any], of: int) -> str:
    """Return the name of a depth in the table of depths: `the head`, `12 blocks.5.0`, or `nothing` frozen."""
    if row["layer"] == of:
        return "the head"
    return f"{row['layer']} {row['name']}" if row["layer"] else "nothing"


def describe_depth_choice(info: dict[str, Any]) -> str | None:
    """Return which depth `--freeze auto` kept and why; None for another run, or one of an older version.

    Errors are standard errors of the paired difference, in points.
    """
    training = info["training"]
    tried = training["tried"] if training else []
    others = [row for row in tried[1:] if row.get("accuracy_gain") is not None]
    if not others:
        return None
    first, kept, of = tried[0], tried[training["best"]], info["freeze"]["of"]
    where = "out of fold" if training.get("folds") else f"on {info['validation']['images']:,} held-out images"
    if kept is not first:
        over = "the head alone" if first["layer"] == of else _tail(first)
        losses = f"loss {kept['loss']:.3f} instead of {first['loss']:.3f}"
        return f"{_tail(kept)}: {_gain(kept)} over {over}, {where}; {losses}"
    best = max(others, key=lambda row: row["accuracy_gain"])
    name = "head alone" if first["layer"] == of else _tail(first)
    reason = f"{name}: no depth was better beyond chance; the best, {_behind(best)}, by {_gain(best)}, {where}"
    if best["accuracy_gain"] > best["accuracy_gain_error"]:
        reason += f", but its loss, {best['loss']:.3f}, was not lower than {first['loss']:.3f} beyond chance"
    return reason


def describe_comparisons(info: dict[str, Any]) -> list[str]:
    """Return lines that compare a run with its parent, and its labels in bf16 with those in fp32, if known."""
    found = {"Parent": describe_forgetting(info), "Precision": _describe_precision_check(info)}
    return [f"{name:<9} {text}" for name, text in found.items() if text]


def _describe_precision_check(info: dict[str, Any]) -> str | None:
    check = info.get("precision_check")
    if check is None:
        return None
    return (
        f"bf16: {100 * check['agreement']:.1f} % of labels agree with fp32 on {check['images']:,} held-out images, "
        f"accuracy {100 * check['accuracy']:.1f} % ({100 * check['accuracy_fp32']:.1f} % in fp32)"
    )


def describe_forecast(info: dict[str, Any]) -> str | None:
    """Return what more images would bring, or why that cannot be estimated; None for a run of an older version."""
    curve = info.get("learning_curve")
    if curve is None:
        return None
    forecast = curve["forecast"]
    if forecast is None:
        return f"the benefit of more images cannot be estimated: {curve['reason']}"
    now, (mean, low, high) = curve["points"][-1]["accuracy"], (forecast[key] for key in ("accuracy", "low", "high"))
    head = " of the head alone" if info["freeze"]["layer"] != info["freeze"]["of"] else ""
    raised = f"would raise the accuracy{head} from {100 * now:.1f} % to about {100 * mean:.1f} %"
    return f"about {forecast['more']:,} more images like these {raised} ({100 * low:.1f} to {100 * high:.1f})"


def _behind(row: dict[str, Any]) -> str:
    return f"behind {row['name']}" if row["layer"] else "the whole network"


def _tail(row: dict[str, Any]) -> str:
    return f"tail {_behind(row)}" if row["layer"] else _behind(row)


def _gain(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy_gain']:+.1f} points ± {100 * row['accuracy_gain_error']:.1f}"


def describe_forgetting(info: dict[str, Any]) -> str | None:
    """Return the accuracy on the parent's validation images before and after, from `run.json`; None if unknown."""
    found = info.get("forgetting")
    if not found or found["before"] is None:
        return None
    return (
        f"accuracy {100 * found['before']:.1f} % before and {100 * found['after']:.1f} % after continuing, on "
        f"{found['images']:,} images that {found['run']} held out"
    )
