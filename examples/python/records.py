"""Makes records, groups them, and prints totals: ordinary Python objects on the heap."""

from collections import defaultdict

records = [
    {"name": f"customer {n}", "city": f"city {n % 97}", "orders": [n % 7, n % 11, n % 13]}
    for n in range(120_000)
]
totals = defaultdict(int)
for record in records:
    totals[record["city"]] += sum(record["orders"])
print(len(records), "records,", len(totals), "cities")
for city in sorted(totals, key=lambda city: (-totals[city], city))[:3]:
    print(city, totals[city])
