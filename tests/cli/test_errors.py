"""The errors that a user can cause: exit code, message, and JSON."""

from __future__ import annotations

import json

import pytest

from tlcli.cli.main import run


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["finetune"], 2, "Missing argument 'DATA'"),
        (["finetune", "x", "--frob"], 2, "No such option"),
        (["frob"], 2, "No such command"),
        (["finetune", "nowhere"], 4, "nowhere does not exist"),
        (["finetune", "nowhere", "--fit", "stretch"], 2, "--fit is 'stretch'"),
        (["finetune", "nowhere", "--validation-fraction", "1.5"], 2, "--validation-fraction is 1.5"),
        (["finetune", "nowhere", "--overwrite"], 2, "--overwrite needs --out"),
        (["finetune", "nowhere", "--device", "tpu"], 2, "--device is 'tpu'"),
        (["predict", "nowhere", "x.jpg"], 4, "nowhere is not a directory"),
        (["predict", "nowhere", "x.jpg", "--resume"], 2, "--resume has no effect without --out"),
        (["predict", "nowhere", "x.jpg", "--min-confidence", "7"], 2, "--min-confidence is 7"),
        (
            ["predict", "nowhere", "x.jpg", "--unknown-rate", "1"],
            2,
            "--unknown-rate is 1.0; expected 0 or more, and less",
        ),
        (["finetune", "nowhere", "--corrections", "nowhere.csv"], 4, "nowhere.csv cannot be read as a .csv table"),
        (["finetune", "nowhere", "--exclude", ""], 2, "--exclude is ''"),
        (["predict", "nowhere", "x.jpg", "--include", "/"], 2, "--include is '/'"),
        (["predict", "nowhere", "x.jpg", "--shard", "0/4"], 2, "--shard is '0/4'; expected I/N with I from 1 to N"),
        (["predict", "nowhere", "x.jpg", "--shard", "5/4"], 2, "--shard is '5/4'; expected I/N with I from 1 to N"),
        (["cache-features", "nowhere", "--shard", "x"], 2, "--shard is 'x'; expected I/N with I from 1 to N"),
        (
            ["cache-features", "nowhere", "--shard", "1/2", "--cluster", "auto"],
            2,
            "--shard and --cluster cannot be combined",
        ),
        (["cache-features", "nowhere", "--cluster", "auto", "--device", "cuda:1"], 2, "expected auto, cpu or cuda"),
        (["cache-features", "nowhere", "--part-size", "9"], 2, "--part-size has no effect without --cluster"),
        (["predict", "nowhere", "x.jpg", "--cores", "1"], 2, "--cores has no effect without --cluster"),
        (["predict", "nowhere", "x.jpg", "--cluster", "auto"], 2, "--cluster needs --out DIR"),
        (["predict", "nowhere", "x.jpg", "--cluster", "", "--out", "x"], 2, "--cluster is empty"),
        (["evaluate", "nowhere", "x", "--split", "holdout"], 2, "--split is 'holdout'"),
        (["compare", "nowhere"], 2, "Missing argument 'RUN_B'"),
        (["compare", "nowhere", "x"], 4, "nowhere is not a directory"),
        (["compare", "nowhere", "x", "--split", "holdout"], 2, "--split is 'holdout'"),
        (["compare", "nowhere", "x", "--split", "train"], 2, "--split train needs DATA"),
        (["compare", "nowhere", "x", "--device", "cpu"], 2, "would have no effect without DATA"),
        (["compare", "nowhere", "x", "--out", "x.csv"], 2, "ending in .html"),
        (["compare", "nowhere", "x", "--overwrite"], 2, "--overwrite has no effect without --out"),
        (["export", "nowhere"], 2, "--format"),
        (["export", "nowhere", "--format", "coreml"], 2, "--format is 'coreml'"),
        (["export", "nowhere", "--format", "onnx"], 4, "nowhere is not a directory"),
        (["export", "nowhere", "--format", "torch", "--int8"], 2, "--int8 requires --format onnx"),
        (["export", "nowhere", "--format", "timm", "--fp16"], 2, "--fp16 requires --format onnx or openvino"),
        (["export", "nowhere", "--format", "onnx", "--fp16", "--int8"], 2, "--fp16 and --int8 cannot be combined"),
        (["export", "nowhere", "--format", "onnx", "--fp16", "--with-novelty"], 2, "--with-novelty and --fp16"),
        (["export", "nowhere", "--format", "timm", "--with-preprocessing"], 2, "no effect with --format timm"),
        (["export", "nowhere", "--format", "onnx", "--out", "x.pt2"], 2, "ending in .onnx"),
        (["finetune", "nowhere", "--unlabeled", "x", "--freeze", "auto"], 2, "only --freeze all learns from unlabeled"),
        (["finetune", "nowhere", "--unlabeled", "-"], 2, "--unlabeled is -"),
        (["finetune", "nowhere", "--epochs", "3"], 2, "--epochs has no effect with --freeze all"),
        (["finetune", "nowhere", "--augment", "light"], 2, "augmentation needs --views K"),
        (["finetune", "nowhere", "--freeze", "9", "--views", "3"], 2, "no effect without augmentation"),
        (
            ["finetune", "nowhere", "--freeze", "none", "--views", "3", "--augment", "light"],
            2,
            "only features of frozen",
        ),
        (["finetune", "nowhere", "--freeze", "9", "--batch-size", "1"], 2, "at least 2 images"),
        (["finetune", "nowhere", "--freeze", "none", "--engine", "onnx"], 2, "no effect with --freeze none"),
        (
            ["finetune", "nowhere", "--freeze", "9", "--engine", "openvino", "--precision", "bf16"],
            2,
            "--freeze 9 cannot be combined with --engine openvino --precision bf16",
        ),
        (["finetune", "nowhere", "--engine", "tpu"], 2, "expected one of auto, torch, onnx, openvino"),
        (["finetune", "nowhere", "--freeze", "9", "--learning-rate", "0"], 2, "--learning-rate is 0"),
        (["cache-features", "nowhere", "--freeze", "none"], 2, "--freeze is 'none'"),
        (["cache-features", "nowhere", "--rotate", "9"], 2, "needs --views K"),
        (["cache-features", "nowhere", "--freeze", "9", "--rotate", "9"], 2, "without --views K"),
        (["augment", "nowhere"], 2, "give --out DIR"),
        (["augment", "nowhere", "--out", "x"], 4, "nowhere does not exist"),
        (["augment", "nowhere", "--out", "x", "--augment", "wild"], 2, "--augment is 'wild'"),
        (["augment", "nowhere", "--out", "x", "--augment", "none"], 2, "leave images unchanged"),
        (["augment", "nowhere", "--out", "x", "--crop", "0"], 2, "--crop is 0"),
        (["augment", "nowhere", "--out", "x", "--color-shift", "1,2"], 2, "--color-shift is '1,2'"),
        (["augment", "nowhere", "--out", "x", "--color-shift", "-20,20,0"], 4, "nowhere does not exist"),
        (["augment", "nowhere", "--out", "x", "--color-shift=-20,20,0"], 4, "nowhere does not exist"),
        (["check", "nowhere"], 4, "nowhere does not exist"),
        (["check", ".", "--label-column", "x"], 2, "--label-column has no effect: . is not a table"),
        (["finetune", "x.csv", "--image-column", " "], 2, "--image-column is ' '; expected the name of a column"),
        (["check", "nowhere", "--overwrite"], 2, "--overwrite has no effect"),
        (["check", "nowhere", "--out", "findings.txt"], 2, "ending in .csv"),
        (["inspect", "lenet5", "nowhere"], 4, "nowhere does not exist"),
        (["inspect", "lenet5", "nowhere", "--units", "0"], 2, "--units is 0"),
        (["inspect", "lenet5", "nowhere", "--fit", "stretch"], 2, "--fit is 'stretch'"),
        (["benchmark", "nowhere"], 4, "nowhere is not a directory"),
        (["benchmark", "nowhere", "--engine", "auto"], 2, "--engine is 'auto'; expected one of torch, onnx, openvino"),
        (["benchmark", "nowhere", "--engine", "onnx", "--device", "cuda"], 2, "--engine onnx runs on a CPU"),
        (["benchmark", "nowhere", "--images", "0"], 2, "--images is 0"),
        (["benchmark", "nowhere", "--seconds", "0"], 2, "--seconds is 0"),
        (["benchmark", "nowhere", "--label-column", "x"], 2, "--label-column has no effect without INPUT"),
        (["serve", "nowhere"], 4, "nowhere is not a directory"),
        (["serve", "nowhere", "--port", "70000"], 2, "--port is 70000"),
        (["serve", "nowhere", "--token", "x"], 2, "--token has 1 characters"),
        (["serve", "nowhere", "--token", "x" * 20, "--no-token"], 2, "cannot be combined"),
        (["similar", "lenet5", "x.jpg"], 2, "--in"),
        (["similar", "lenet5", "x.jpg", "--in", "nowhere"], 4, "x.jpg does not exist"),
        (["similar", "lenet5", "-", "--in", "-"], 2, "standard input is one list"),
        (["similar", "lenet5", "x.jpg", "--in", "nowhere", "--top", "0"], 2, "--top is 0"),
        (["similar", "lenet5", "x.jpg", "--in", "nowhere", "--out", "x.txt"], 2, "--out is x.txt"),
        (["similar", "lenet5", "x.jpg", "--in", "nowhere", "--overwrite"], 2, "--overwrite has no effect"),
        (["similar", "lenet5", "x.jpg", "--in", "nowhere", "--size", "auto"], 2, "--size auto is an option"),
        (["backbones", "no-such-thing"], 2, "no-such-thing"),
        (["layers", "resnet_18"], 2, "resnet18"),
    ],
)
def test_errors_have_a_code_a_message_and_json(arguments, code, message, capfd):
    assert run(arguments) == code
    plain = capfd.readouterr()
    assert message in plain.err
    assert plain.out == ""
    assert "Traceback" not in plain.err

    assert run([*arguments, "--json"]) == code
    error = json.loads(capfd.readouterr().out)["error"]
    assert error.keys() == {"kind", "message", "path"}
    assert message in error["message"]
