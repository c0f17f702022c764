"""The coordinates in which heads are optimized."""

import torch

from tlcli.training.head.statistics import axes_of


def test_eigenvectors_that_float32_does_not_find_are_found_in_float64(monkeypatch):
    """As for images that differ little, such as those whose crops lack what tells them apart."""
    eigh, tried = torch.linalg.eigh, []

    def fail_in_float32(matrix):
        tried.append(matrix.dtype)
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("did not converge")
        return eigh(matrix)

    rows, labels = torch.eye(6)[:5] - 0.2, torch.tensor([0, 0, 1, 1, 1])
    expected = axes_of(rows, labels, 6)
    monkeypatch.setattr(torch.linalg, "eigh", fail_in_float32)
    found = axes_of(rows, labels, 6)
    assert tried == [torch.float32, torch.float64]
    assert {tensor.dtype for tensor in found} == {torch.float32}
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-5)
