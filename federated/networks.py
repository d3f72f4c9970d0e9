"""The models of `federated.architectures` in PyTorch, for training."""

import torch
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]


def logits(params: Tensors, indices: Tensor, starts: Tensor, numeric: Tensor) -> Tensor:
    """Scores before softmax, (batch, classes); arguments as in `architectures.logits`."""
    added = params["bias"]
    if len(params["codes"]):  # a model of numbers alone has no sparse input
        added = functional.embedding_bag(indices, params["codes"], starts, mode="sum") + added
    layer = torch.addmm(added, numeric, params["numeric"])
    if "output.weight" in params:
        layer = torch.addmm(params["output.bias"], functional.relu(layer), params["output.weight"])
    return layer
