"""What a run is told of its machine."""

import subprocess
import sys

import numpy as np

from unilat.training.machine import peak_memory


def test_peak_memory_is_this_process_own():
    """Mutant: getrusage, which counts the peak of the parent that started this process, too."""
    held = np.ones(80 << 20, dtype=np.uint8)  # 80 MiB that the child never had
    words = "import sys; from unilat.training.machine import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    before = peak_memory()
    assert before > held.nbytes / 2**20
    more = np.ones(3 * held.nbytes, dtype=np.uint8)
    again = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert abs(float(again.stdout) - float(child.stdout)) < 20
    assert peak_memory() - before > 0.9 * more.nbytes / 2**20
