"""The models of `federated.architectures` in PyTorch, for training."""

import torch
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]


def logits(params: Tensors, indices: Tensor, starts: Tensor, numeric: Tensor) -> Tensor:
    """Scores before softmax, (batch, classes); arguments as in `architectures.logits`."""
    sums = functional.embedding_bag(indices, params["codes"], starts, mode="sum")
    layer = torch.addmm(sums + params["bias"], numeric, params["numeric"])
    if "output.weight" in params:
        layer = torch.addmm(params["output.bias"], functional.relu(layer), params["output.weight"])
    return layer
