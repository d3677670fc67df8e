"""Medians of what was measured, and the table of them."""

from statistics import median_low

FIGURES = {
    "faults": "faults",
    "fetched_pages": "fetched",
    "prefetched_pages": "prefetched",
    "standby_refaults": "standby hits",
    "compressed_hits": "copies",
    "evicted_pages": "evicted",
}
MIB = 1 << 20
PAGE = 4096


def medians(native, paged, swapped):
    """One program's results: those of the native runs, and of each share."""
    reference = native[0]["digest"]
    seconds = median_low(run["seconds"] for run in native)
    result = {
        "native_seconds": seconds,
        "native_peak_bytes": max(run["peak_bytes"] for run in native),
        "repeatable": all(run["digest"] == reference for run in native),
        "shares": [],
        "swap": [],
    }
    for (percent, budget), runs in paged.items():
        share, done = share_of(percent, budget, runs, seconds, reference)
        for name in FIGURES:
            share[name] = median_low(run["figures"][name] for run in done) if done else 0
        cpu = [run["figures"]["pager_cpu_ns"] / 1e9 / run["seconds"] for run in done]
        share["pager_cpu_percent"] = 100 * median_low(cpu) if cpu else 0
        result["shares"].append(share)
    for (percent, budget), runs in swapped.items():
        share, done = share_of(percent, budget, runs, seconds, reference)
        if done:
            share["fetched_pages"] = median_low(run["read_bytes"] for run in done) // PAGE
        result["swap"].append(share)
    return result


def share_of(percent, budget, runs, native_seconds, reference):
    """What there is of any place, and the runs that came to their end: of others no figure counts."""
    done = [run for run in runs if "failure" not in run]
    took = median_low(run["seconds"] for run in done) if done else None
    share = {
        "percent": percent,
        "budget_bytes": budget,
        "seconds": took,
        "slowdown": took / native_seconds if done else None,
        "identical": all(run["digest"] == reference for run in runs),
        "failures": [run["failure"] for run in runs if "failure" in run],
    }
    return share, done


def is_sound(result):
    paged = all(share["identical"] for share in result["shares"])
    # What was killed there is no failure of tmem's.
    swapped = all(share["identical"] or share["failures"] for share in result["swap"])
    return result["repeatable"] and paged and swapped


def heads():
    names = ["program", "local", "time", "slowdown", *FIGURES.values(), "pager CPU", "output"]
    # The first two columns to the left, the others to the right.
    lines = ["---" if at < 2 else "--:" for at in range(len(names))]
    return f"| {' | '.join(names)} |\n| {' | '.join(lines)} |"


def rows(name, result):
    empty = [""] * (len(FIGURES) + 1)
    local = f"native, {result['native_peak_bytes'] / MIB:.0f} MiB"
    verdict = "" if result["repeatable"] else "**not repeatable**"
    yield [name, local, f"{result['native_seconds']:.2f} s", "", *empty, verdict]
    for share in result["shares"]:
        yield [
            name,
            *times(share),
            *(str(share[figure]) for figure in FIGURES),
            f"{share['pager_cpu_percent']:.0f} %",
            verdict_of(share),
        ]
    for share in result["swap"]:
        local, *rest = times(share)
        fetched = [str(share.get(figure, "")) for figure in FIGURES]
        yield [name, f"zram, {local}", *rest, *fetched, "", verdict_of(share)]


def times(share):
    """How much there was, and how long it took."""
    yield f"{share['percent']} %, {share['budget_bytes'] / MIB:.0f} MiB"
    done = share["seconds"] is not None
    yield f"{share['seconds']:.2f} s" if done else ""
    yield f"{share['slowdown']:.2f}x" if done else ""


def verdict_of(share):
    if share["failures"]:
        return f"**failed** {len(share['failures'])} times"
    return "same" if share["identical"] else "**differs**"


def table(results):
    whole = [row for name, result in results.items() for row in rows(name, result)]
    return "\n".join([heads(), *(f"| {' | '.join(row)} |" for row in whole)])
