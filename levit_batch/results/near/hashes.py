"""Rows whose perceptual hashes are near: exact, by bands of bits that two near hashes must share."""

from collections.abc import Iterator

import numpy as np

# Bits (of 64) in which the hashes of copies may differ: encoded again or resized; and mirrored, of which the odd columns of
# frequencies are turned around, and those about as large as their median by chance.
SAME, MIRRORED = 2, 4
ODD = np.uint64(0x5555555555555555)
MANY = 4_000_000  # pairs in memory at once
BITS = [(1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)]


def look_alikes(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of row numbers (first, second) [P]: of rows of hashes int64 [N] that are copies of each other, maybe mirrored."""
    values, first, which = np.unique(hashes.view(np.uint64), return_index=True, return_inverse=True)
    linked = np.empty((2, 0), np.int64)
    for others, bits in ((values, SAME), (values ^ ODD, MIRRORED)):
        for pairs in _near(values, others, bits):
            linked = np.concatenate([linked, pairs], axis=1)
            linked = _spanning(linked, len(values)) if linked.shape[1] > MANY else linked
    rows = np.arange(len(hashes))
    linked = np.concatenate([first[linked], np.stack([rows, first[which]])], axis=1)
    return tuple(linked[:, linked[0] != linked[1]])


def _near(ours: np.ndarray, others: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """Pairs [2,P] of places in `ours` and `others`, both uint64 [N], that differ in at most `bits`.

    Of bits + 1 bands two such numbers share one at least: only numbers with the same value in a band are compared. A band has
    high and low frequencies; bits beside each other say too much of each other to tell many images apart.
    """
    for band in range(bits + 1):
        mask = np.uint64(sum(1 << bit for bit in range(band, 64, bits + 1)))
        mine, theirs = np.argsort(ours & mask, kind="stable"), np.argsort(others & mask, kind="stable")
        keys = (others & mask)[theirs]
        at, end = (np.searchsorted(keys, (ours & mask)[mine], side) for side in ("left", "right"))
        while len(mine := mine[at < end]):
            at, end = at[at < end], end[at < end]
            compared = theirs[at]
            near = bit_count(ours[mine] ^ others[compared]) <= bits
            if near.any():
                yield np.stack([mine[near], compared[near]])
            at = at + 1


def bit_count(numbers: np.ndarray) -> np.ndarray:
    """How many bits are one in each of uint64 [N]; what numpy has from 2.0 on as `bitwise_count`."""
    for shift, mask in BITS:
        numbers = (numbers & np.uint64(mask)) + ((numbers >> np.uint64(shift)) & np.uint64(mask))
    return (numbers * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _spanning(pairs: np.ndarray, n: int) -> np.ndarray:
    """Fewer pairs that link the same of n."""
    group = groups(*pairs, n)
    rows = np.flatnonzero(group != np.arange(n))
    return np.stack([rows, group[rows]])


def groups(first: np.ndarray, second: np.ndarray, n: int) -> np.ndarray:
    """The group int32 [n] of each of n rows of which the pairs (first, second) [P] belong together: its lowest row number."""
    group = np.arange(n, dtype=np.int32)
    while True:
        before = group.copy()
        least = np.minimum(group[first], group[second])
        np.minimum.at(group, group[first], least)
        np.minimum.at(group, group[second], least)
        group = group[group]
        if np.array_equal(group, before):
            return group
