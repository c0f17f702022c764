import pytest

from tlcli.backbones.layer_table import layer_table, layer_table_by_name
from tlcli.backbones.zoo import load_backbone
from tlcli.errors import UsageError


def kinds(table):
    return [layer.kind for layer in table.layers]


def test_lenet5():
    _, table = layer_table_by_name("lenet5")
    assert table.parameters == 850 + 10_164 + 48_120 + 2_416 + 156
    assert load_backbone("lenet5", "none", classes=10).model.state_dict()["fc1.weight"].shape == (120, 400)
    assert [layer.output_shape for layer in table.layers] == [(6, 14, 14), (400,), (120,), (84,)]
    assert kinds(table) == ["convolution", "convolution", "linear", "linear"]
    assert table.layers[0].arithmetic == (
        "floor((32 + 2*0 - 5) / 1) + 1 = 28",
        "floor((28 + 2*0 - 2) / 2) + 1 = 14",
    )


def test_alexnet_has_5_convolutions_and_with_the_head_3_fully_connected_layers():
    _, table = layer_table_by_name("torchvision/alexnet")
    assert table.parameters == 61_100_840
    assert kinds(table) == ["convolution"] * 5 + ["linear"] * 2
    assert table.head.name == "classifier.6"
    first = table.layers[0]
    assert (first.kernel, first.stride, first.padding) == ((11, 11), (4, 4), (2, 2))
    assert [layer.receptive_field for layer in table.layers] == [19, 67, 99, 131, 195, 224, 224]


@pytest.mark.parametrize(("name", "convolutions", "millions"), [("vgg16", 13, 138.4), ("vgg19", 16, 143.7)])
def test_vgg(name, convolutions, millions):
    _, table = layer_table_by_name(name)
    assert round(table.parameters / 1e6, 1) == millions
    assert kinds(table) == ["convolution"] * convolutions + ["linear"] * 2
    assert table.layers[convolutions - 1].output_shape == (512, 7, 7)


def test_vgg16_receptive_field_equals_the_textbook_value():
    _, table = layer_table_by_name("vgg16")
    assert table.layers[12].receptive_field == 212


def test_the_default_backbone_shows_asymmetric_padding_and_whole_blocks():
    _, table = layer_table_by_name("tf_efficientnet_lite0")
    assert len(table.layers) == 18
    assert table.layers[0].padding == (0, 1, 0, 1)
    assert table.layers[2].name == "blocks.1.0"
    assert (table.layers[2].kind, table.layers[2].stride, table.layers[2].kernel) == ("block", (2, 2), None)
    assert table.layers[-1].name == "conv_head"
    assert table.layers[-1].output_shape == (1280,)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_parameters_of_layers_and_head_add_up(name):
    backbone, table = layer_table_by_name(name)
    assert sum(layer.parameters for layer in table.layers) + table.head.parameters == table.parameters
    assert table.parameters == sum(p.numel() for p in backbone.model.parameters())
    assert [layer.number for layer in table.layers] == list(range(1, len(table.layers) + 1))
    assert len({layer.name for layer in table.layers}) == len(table.layers)


def test_the_table_does_not_depend_on_weights():
    assert layer_table(load_backbone("resnet18", "none")) == layer_table_by_name("resnet18")[1]


def test_a_network_that_cannot_be_traced_has_one_row():
    backbone, table = layer_table_by_name("twins_svt_small")
    assert [(layer.number, layer.kind) for layer in table.layers] == [(1, "network")]
    assert table.layers[0].output_shape == (512,)
    assert table.parameters == sum(p.numel() for p in backbone.model.parameters())


def test_another_size_changes_the_shapes():
    _, table = layer_table_by_name("resnet18", 64)
    assert table.layers[0].output_shape == (64, 16, 16)
    with pytest.raises(UsageError, match="32"):
        layer_table_by_name("lenet5", 64)
