"""Weights at addresses that don't change what is drawn."""

# Only the worker process imports this module.
import torch  # noqa: TID253

ALIGNMENT = 64
"""Bytes. Intel's MKL promises equal sums only for arrays at multiples of it ("Obtaining Numerically
Reproducible Results" in its developer guide), and torch allocates so."""


def align(module: torch.nn.Module) -> None:
    """Copies the weights of a module on the CPU that lie elsewhere.

    Those that are mapped out of a file lie where the file happens to have them, often at multiples
    of 4. The same model as a single file and as a folder would draw with other last bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
