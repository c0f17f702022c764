"""The public names of `import tlcli`, and what importing them loads."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import tlcli


@pytest.mark.parametrize("name", [*tlcli.__all__, "__version__"])
def test_public_names_exist(name):
    assert getattr(tlcli, name)
    assert name in dir(tlcli)


def test_no_name_is_a_module():
    """Importing a submodule sets its name in the package, which would replace a function of that name."""
    assert not set(tlcli.__all__) & {module.name for module in pkgutil.iter_modules(tlcli.__path__)}


def test_other_names_raise():
    with pytest.raises(AttributeError, match="No tlcli attribute train"):
        tlcli.train  # noqa: B018 - access is the test


def test_settings_and_errors_import_nothing_heavy():
    code = (
        "import sys; from tlcli import FinetuneSettings, PredictSettings, TlcliError; "
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules); assert not heavy, heavy; "
        "from tlcli import predict; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
