"""Structured pruning: whole channels and units go, and with them the inputs of the layers behind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcddrl.compressors.layers import Weighted
from hpcddrl.compressors.pruning import Pruned
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.networks.torsos import Residual


class Stream(NamedTuple):
    """Channels that run through a network as one: who writes them and who reads them.

    A residual block adds to the channels it reads, so those go from all its writers or from none.
    """

    writers: list[Weighted]  # their outputs are these channels
    readers: list[Weighted]  # their inputs are


def streams(network: AnyNetwork) -> list[Stream]:
    """Return the streams of a network, from the observation's side to the heads'."""
    found: list[Stream] = []
    open_: Stream | None = None  # the observation's own channels stay
    for module in network.torso.children():
        if isinstance(module, Residual):
            assert open_ is not None, "a torso starts with a layer that writes channels"
            found.append(Stream([module.first], [module.second]))
            open_.readers.append(module.first)
            open_.writers.append(module.second)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            if open_ is not None:
                open_.readers.append(module)
            open_ = Stream([module], [])
            found.append(open_)
    assert open_ is not None
    open_.readers.extend(m for m in network.children() if isinstance(m, nn.Linear))  # the heads
    return found


def strongest(stream: Stream, count: int) -> Tensor:
    """Return the indices [count] of the channels whose writers have the largest weights (sum of |w|), in order."""
    strength = torch.stack([w.weight.detach().abs().flatten(1).sum(1) for w in stream.writers]).sum(0)
    return strength.topk(count).indices.sort().values


def prune(teacher: AnyNetwork, smaller: AnyNetwork) -> None:
    """Give a narrower network of the same torso its teacher's strongest channels, exactly as they are.

    Its outputs are those of the teacher with all other channels' weights and biases set to 0.
    """
    kept = [strongest(s, t.writers[0].weight.shape[0]) for s, t in zip(streams(teacher), streams(smaller), strict=True)]
    outputs: dict[int, Tensor] = {}
    inputs: dict[int, Tensor] = {}
    for stream, channels in zip(streams(teacher), kept, strict=True):
        outputs |= {id(layer): channels for layer in stream.writers}
        inputs |= {id(layer): _inputs(layer, stream, channels) for layer in stream.readers}
    everything = slice(None)
    with torch.no_grad():
        for (_, own), (_, given) in zip(smaller.named_modules(), teacher.named_modules(), strict=True):
            if isinstance(own, nn.Conv2d | nn.Linear) and isinstance(given, nn.Conv2d | nn.Linear):
                rows, columns = outputs.get(id(given), everything), inputs.get(id(given), everything)
                own.weight.copy_(given.weight[rows][:, columns])
                if own.bias is not None and given.bias is not None:
                    own.bias.copy_(given.bias[rows])
        log_std = getattr(smaller, "log_std", None)
        if log_std is not None:
            log_std.copy_(teacher.log_std)


def _inputs(reader: Weighted, stream: Stream, channels: Tensor) -> Tensor:
    """Return which inputs of a reader the channels are: a linear layer reads each pixel of a convolution's."""
    pixels = reader.weight.shape[1] // stream.writers[0].weight.shape[0]
    return (channels.unsqueeze(1) * pixels + torch.arange(pixels)).flatten()


class Channels(Pruned):
    """What is left of a teacher without its weakest channels and units, distilled; see `Pruned`.

    Args:
        network: of the teacher's torso, narrower.
        distiller: of it.
    """

    def prune(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Pruned`."""
        prune(teacher, self.network)
        return self.distil(teacher, states)

    def distil(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Pruned`."""
        return self._distiller.follow(teacher, states)

    def another(self, network: AnyNetwork) -> Channels:
        """See `Pruned`."""
        return Channels(network, self._distiller.of_another(network))
