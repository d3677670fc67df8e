"""dataframe.py ROWS: joins, groups and sorts tables of sales with pandas; prints the results."""

import sys

import numpy as np
import pandas as pd

rows = int(sys.argv[1])
items = max(rows // 20, 10)
rng = np.random.default_rng(9)
sales = pd.DataFrame(
    {
        "item": rng.integers(0, items, rows),
        "amount": rng.integers(1, 100, rows),
        "price": rng.random(rows),
        "day": rng.integers(0, 365, rows),
    }
)
items = pd.DataFrame(
    {
        "item": np.arange(items),
        "kind": rng.integers(0, 50, items),
        "name": [f"item-{i * 7919 % items}" for i in range(items)],
    }
)
joined = sales.merge(items, on="item")
joined["value"] = joined["amount"] * joined["price"]
kinds = joined.groupby("kind").agg(value=("value", "sum"), days=("day", "nunique"))
print(kinds.to_csv())
dear = joined[joined["value"] > 50].sort_values(["value", "item"], kind="stable")
print(dear.tail(50).to_csv(index=False))
names = joined.groupby("name")["value"].max().sort_values(kind="stable")
print(names.tail(50).to_csv())
