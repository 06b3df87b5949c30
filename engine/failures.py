"""What torch's errors mean to the step loop, and what must be let go of after one."""

import traceback


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether memory was missing, the device's or the machine's."""
    import torch

    # On the CPU torch has no type of its own for it.
    no_host_memory = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return no_host_memory or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def is_device_failure(error: Exception) -> bool:
    """Returns whether the device is lost: after a failed CUDA kernel every further call fails."""
    import torch

    return isinstance(error, torch.AcceleratorError)


def let_go(error: BaseException | None) -> None:
    """Frees what an error's frames hold: mostly the very memory that was missing."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """Returns what an error says, short enough for a sentence."""
    return str(error).strip().partition("\n")[0] or "no reason given"
