"""What is said about the chosen depth, and about more images."""

import pytest

from tlcli.inference.outcomes import describe_depth_choice, describe_forecast

HEAD = {"layer": 18, "name": "head", "accuracy_gain": None, "accuracy_gain_error": None, "loss": 0.4}


def depth(gain, *, error=0.006, layer=12, loss=0.35):
    name = "blocks.5.0" if layer else ""
    return {"layer": layer, "name": name, "accuracy_gain": gain, "accuracy_gain_error": error, "loss": loss}


def run(*others, best=0, folds=3, first=HEAD, **more):
    training = {"tried": [first, *others], "best": best, "folds": folds}
    return {"training": training, "freeze": {"layer": 12, "of": 18}, "validation": {"images": 614}} | more


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (
            run(depth(0.021, error=0.008), best=1),
            "tail behind blocks.5.0: +2.1 points ± 0.8 over the head alone, out of fold; loss 0.350 instead of 0.400",
        ),
        (
            run(depth(0.004), depth(-0.01, layer=9)),
            "head alone: no depth was better beyond chance; "
            "the best, behind blocks.5.0, by +0.4 points ± 0.6, out of fold",
        ),
        (
            run(depth(0.01, layer=0), best=1, folds=None),
            "the whole network: +1.0 points ± 0.6 over the head alone, on 614 held-out images",
        ),
        (run(depth(0.01, loss=0.41)), "but its loss, 0.410, was not lower than 0.400 beyond chance"),
    ],
)
def test_the_choice_and_its_reason_are_one_line(info, said):
    assert said in describe_depth_choice(info)


def test_nothing_was_chosen_without_a_choice():
    assert describe_depth_choice(run()) is None
    assert describe_depth_choice({"training": None}) is None
    old = {name: value for name, value in depth(0.1).items() if not name.startswith("accuracy_gain")}
    assert describe_depth_choice(run(old)) is None, "a run of an older version"


def curve(**changes):
    forecast = {"more": 1000, "images": 3454, "accuracy": 0.885, "low": 0.875, "high": 0.893}
    points = [{"images": 2454, "accuracy": 0.864, "error": 0.006}]
    return {"learning_curve": {"points": points, "forecast": forecast, "reason": None} | changes}


def test_more_images_are_announced_with_an_interval():
    said = "about 1,000 more images like these would raise the accuracy from 86.4 % to about 88.5 % (87.5 to 89.3)"
    assert describe_forecast({"freeze": {"layer": 18, "of": 18}} | curve()) == said
    assert "accuracy of the head alone from" in describe_forecast({"freeze": {"layer": 12, "of": 18}} | curve())


def test_what_cannot_be_told_is_said_with_the_reason():
    assert describe_forecast(curve(forecast=None, reason="the curve is flat")).endswith(
        "cannot be estimated: the curve is flat"
    )
    assert describe_forecast({}) is None, "a run of an older version"
