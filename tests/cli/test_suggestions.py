"""The message about an unknown option suggests the one that was probably meant."""

import pytest
import typer

from tlcli.cli.main import app, run
from tlcli.cli.suggestions import NAMES_ELSEWHERE, suggest


def options_of(command):
    (found,) = [sub for name, sub in typer.main.get_command(app).commands.items() if name == command]
    return {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}


ALL = {option for command in ("finetune", "predict", "augment", "check") for option in options_of(command)}


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("--lr", "--learning-rate"),
        ("--lr-rate", "--learning-rate"),
        ("--learning_rate", "--learning-rate"),
        ("--LearningRate", "--learning-rate"),
        ("--lerning-rate", "--learning-rate"),
        ("--learn", "--learning-rate"),
        ("--epoch", "--epochs"),
        ("--num_train_epochs", "--epochs"),
        ("--bs", "--batch-size"),
        ("--batchsize", "--batch-size"),
        ("--wd", "--weight-decay"),
        ("--model", "--backbone"),
        ("--arch", "--backbone"),
        ("--val-split", "--validation-fraction"),
        ("--gpu", "--device cuda"),
        ("--amp", "--precision fp16"),
        ("--img_size", "--size"),
        ("--no-miror", "--no-mirror"),
        ("--frob", None),
        ("--x", None),
        ("--s", None),
    ],
)
def test_the_option_that_was_meant_is_suggested(wrong, meant):
    assert suggest(wrong, options_of("finetune")) == meant


def test_click_reports_the_first_letter_of_a_long_option_with_one_dash():
    assert suggest("-l", options_of("finetune"), ["finetune", "x", "-lr", "3"]) == "--learning-rate"


def test_options_of_other_commands_are_not_suggested():
    assert suggest("--lr", options_of("predict")) is None
    assert suggest("--topk", options_of("predict")) == "--top"


def test_every_suggested_option_exists_and_no_name_is_listed_twice():
    assert {meant.split()[0] for meant in NAMES_ELSEWHERE} <= ALL
    names = [name.replace("-", "") for names in NAMES_ELSEWHERE.values() for name in names.split()]
    assert len(names) == len(set(names))
    assert not {f"--{name}" for names in NAMES_ELSEWHERE.values() for name in names.split()} & options_of("finetune")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--lr=0.1", "No such option: --lr. Did you mean --learning-rate? See tlcli finetune --help."),
        ("--frob", "No such option: --frob. See tlcli finetune --help."),
    ],
)
def test_the_message_suggests_it(option, message, capsys):
    assert run(["finetune", "x", option]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
