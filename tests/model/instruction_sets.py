"""Which native kernels this processor can run: each is tested, not only the one it prefers."""

from model.kernels.native import INSTRUCTION_SETS, NativeKernels


def is_available(name: str) -> bool:
    try:
        return NativeKernels(1, name).name == name
    except OSError:
        return False


AVAILABLE = [name for name in INSTRUCTION_SETS if is_available(name)]
