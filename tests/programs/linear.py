"""linear.py N MIB: linear algebra on N x N matrices and sums over MIB of numbers."""

import hashlib
import sys

import numpy as np

n, mib = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(11)
a = rng.standard_normal((n, n))
b = rng.standard_normal((n, n))
product = a @ b
solved = np.linalg.solve(a, product)
print("solved within", bool(np.abs(solved - b).max() < 1e-6))
digest = hashlib.sha256(product.tobytes())
long = rng.integers(0, 1 << 40, mib * (1 << 20) // 8, dtype=np.int64)
digest.update(long[::-1][::1000].tobytes())
long.sort()
digest.update(long[::1000].tobytes())
picked = long[rng.integers(0, long.size, 200_000)]
print(int(long.sum()), int(np.bitwise_xor.reduce(picked)), digest.hexdigest())
