"""containers.py N: builds large dicts and lists and walks them; prints digests."""

import hashlib
import random
import sys

count = int(sys.argv[1])
rng = random.Random(7)
table = {}
for i in range(count):
    table[f"key-{i * 7919 % count}"] = [i, str(i * i), (i, i + 1)]
order = list(table)
rng.shuffle(order)
digest = hashlib.sha256()
total = 0
for key in order:
    number, text, pair = table[key]
    total += number + len(text) + pair[1]
    if number % 16 == 0:
        digest.update(key.encode())
for key in order[: count // 3]:
    del table[key]
rows = sorted(([v[1], k] for k, v in table.items()), reverse=True)
for row in rows[::97]:
    digest.update("".join(row).encode())
for key in order[: count // 6]:
    table[key] = {"again": key}
print(total, len(table), len(rows), digest.hexdigest())
