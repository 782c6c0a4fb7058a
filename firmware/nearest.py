"""Makes the word that was perhaps meant out of one that is not known."""


def nearest(word, known):
    """Returns the known word with the fewest edits (Levenshtein) to `word`."""
    best, best_edits = known[0], 1000
    for candidate in known:
        edits = _edits(word, candidate)
        if edits < best_edits:
            best, best_edits = candidate, edits
    return best


def _edits(left, right):
    row = list(range(len(right) + 1))
    for at in range(len(left)):
        following = [at + 1]
        for to in range(len(right)):
            same = row[to] + (0 if left[at] == right[to] else 1)
            following.append(min(same, row[to + 1] + 1, following[to] + 1))
        row = following
    return row[-1]
