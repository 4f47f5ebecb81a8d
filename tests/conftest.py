"""What all tests share."""

import os

# Patches are small: threads that wait for each other cost more than they bring, in NaMaster above
# all (seen: 8 ms a field with two threads, 0.04 ms with one). Set before the libraries load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
