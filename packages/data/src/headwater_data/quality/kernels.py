"""The compiled loops behind the quality signals: one walk over a text's bytes finds words and lines, the rest counts.

Equal words, lines and n-grams are recognised by 64-bit hashes (a text of a million n-grams meets a false match with a
probability of 3e-8). Nothing is allocated a text: the scratch arrays are sized once for the longest one.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from ..characters import (
    ALNUM,
    ALPHA,
    DECIMAL,
    LIMIT,
    LINE_BREAK,
    PUNCTUATION,
    SPACE,
    TERMINAL,
    UPPER,
    decode,
    mixed,
)  # fmt: skip

SHORT_LINE = 30  # characters (FineWeb)
LONG_WORD = 1000  # characters (C4): a line with a longer one is not read
FEW_WORDS = 3  # C4: a line of fewer is not read
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_NGRAM = np.uint64(0x9E3779B97F4A7C15)
_KELVIN = (np.uint8(0xE2), np.uint8(0x84), np.uint8(0xAA))  # the one character beyond ASCII whose lower case is ASCII


def _ascii(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).copy()


def word_hash(word: str) -> int:
    """The kernel's hash of one word."""
    h = int(_FNV_OFFSET)
    for b in word.encode():
        h = (h ^ b) * int(_FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return int(mixed(np.uint64(h)))


# Gopher A1.1: the eight words of which English text has at least two
STOP_WORDS = np.array([word_hash(w) for w in ("the", "be", "to", "of", "and", "that", "have", "with")], np.uint64)


@njit
def _mask(elements):
    """The largest slot of a hash table that `elements` fill to less than half: 2**n - 1."""
    mask = 15
    while mask < 2 * elements:
        mask = 2 * mask + 1
    return mask


Scratch = namedtuple(
    "Scratch",
    ["word_hash", "word_letters", "word_shift", "word_chars", "word_flags", "before", "gram", "slot", "breaks", "feeds",
     "line",
     "keys", "stamps", "counts", "firsts", "stamp"],
)  # fmt: skip


def scratch(longest: int) -> Scratch:
    """Room for a text of `longest` bytes."""
    words = longest + 2  # or lines: a text of line feeds only has one more than it has bytes
    table = _mask(words) + 1
    return Scratch(
        np.empty(words, np.uint64), np.empty(words, np.uint64), np.empty(words, np.uint64),
        np.empty(words, np.int32), np.empty(words, np.uint8), np.zeros(words + 1, np.int64),
        np.empty(words, np.uint64), np.empty(words, np.int64), np.empty((words, 2), np.int64),
        np.empty((words, 2), np.int64), np.empty(words, np.uint8),
        np.empty(table, np.uint64), np.zeros(table, np.int64), np.empty(table, np.int32), np.empty(table, np.int32),
        np.zeros(1, np.int64),
    )  # fmt: skip


def measure_texts(data, offsets, classes, marks_are_words, count_all, by_letters, share_of_words, values):
    """Fill `values` ((signals, texts) float64) in the order of heuristics.SIGNALS.

    Args:
        data, offsets: as of buffers.text_buffers.
        classes: characters.class_table().
        marks_are_words, count_all, by_letters, share_of_words: config.Definitions' alternatives.
    """
    longest = int(np.diff(offsets).max()) if len(offsets) > 1 else 0
    options = marks_are_words, count_all, by_letters, share_of_words
    _measure_all(data, offsets, classes, options, scratch(longest), values)


@njit(cache=True, nogil=True)
def _measure_all(data, offsets, classes, options, room, values):
    marks_are_words, count_all, by_letters, share_of_words = options
    for text in range(len(offsets) - 1):
        start, end = offsets[text], offsets[text + 1]
        out = values[:, text]
        words, breaks, feeds = _walk(data, start, end, classes, marks_are_words, room, out)
        size = max(room.before[words], 1) if share_of_words else max(out[0], 1.0)
        _lines(data, room.breaks[:breaks], classes, out)
        _repeated_lines(data, start, end, room.feeds[:feeds], classes, count_all, size, words, room, out)
        _ngrams(words, size, by_letters, room, out)
        _c4(data, room.breaks[:breaks], classes, room.line, out)


@njit(inline="always")
def _class(classes, point):
    return classes[point] if point < LIMIT else np.uint8(0)


@njit
def _walk(data, start, end, classes, marks_are_words, room, out):
    """Words and lines of one text; the signals that need no more than one look at each character.

    Returns:
        Number of words, of str.splitlines' lines (`room.breaks`), of what line feeds part (`room.feeds`).
    """
    characters = hashes = dots = ellipses = letters = capitals = digits = symbols = 0
    words = breaks = feeds = 0
    line = feed = start
    i = start
    h, letters_hash, shift, length, flags = _FNV_OFFSET, np.uint64(0), np.uint64(1), 0, np.uint8(ALNUM)
    while i <= end:
        if i < end:
            point, size = decode(data, i)
            kind = _class(classes, point)
            characters += 1
        else:
            point, size, kind = np.uint32(32), 1, np.uint8(SPACE)
        # ---- words: flags hold ALNUM while all characters are, ALPHA and PUNCTUATION (none: there is another) once
        mark = marks_are_words and not kind & (ALNUM | SPACE) and point != 95
        if length and (kind & SPACE or mark):
            _finish_word(room, words, h, letters_hash, shift, length, flags)
            words += 1
            h, letters_hash, shift, length, flags = _FNV_OFFSET, np.uint64(0), np.uint64(1), 0, np.uint8(ALNUM)
        if not kind & SPACE:
            for k in range(size):
                h = (h ^ np.uint64(data[i + k])) * _FNV_PRIME
            letters_hash = letters_hash * _NGRAM + mixed(np.uint64(point) + np.uint64(1))
            shift *= _NGRAM
            length += 1
            if not kind & ALNUM:
                flags &= ~np.uint8(ALNUM)
            flags |= kind & np.uint8(ALPHA)
            if not kind & PUNCTUATION:
                flags |= np.uint8(SPACE)  # stands for: not punctuation throughout
            if mark:
                _finish_word(room, words, h, letters_hash, shift, length, flags)
                words += 1
                h, letters_hash, shift, length, flags = _FNV_OFFSET, np.uint64(0), np.uint64(1), 0, np.uint8(ALNUM)
            if kind & ALNUM:
                letters += kind & ALPHA != 0
                capitals += kind & UPPER != 0
                digits += kind & DECIMAL != 0
            else:
                symbols += 1
                hashes += point == 35
                ellipses += point == 0x2026
        if point == 46:
            dots += 1
            if dots == 3:
                ellipses += 1
                dots = 0
        else:
            dots = 0
        # ---- lines
        if i < end and kind & LINE_BREAK:
            if not (point == 10 and i > start and data[i - 1] == 13 and line == i):  # \r\n is one break
                room.breaks[breaks, 0], room.breaks[breaks, 1] = line, i
                breaks += 1
            line = i + size
            if point == 10:
                room.feeds[feeds, 0], room.feeds[feeds, 1] = feed, i
                feeds += 1
                feed = i + 1
        i += size
    if line < end:
        room.breaks[breaks, 0], room.breaks[breaks, 1] = line, end
        breaks += 1
    room.feeds[feeds, 0], room.feeds[feeds, 1] = feed, end
    feeds += 1

    worded = worded_chars = alphabetic = 0
    longest = np.int32(0)
    seen = 0
    for w in range(words):
        f = room.word_flags[w]
        if f & (ALNUM | SPACE):
            worded += 1
            worded_chars += room.word_chars[w]
        alphabetic += f & ALPHA != 0
        longest = max(longest, room.word_chars[w])
        if room.word_chars[w] <= 4:
            for k in range(len(STOP_WORDS)):
                if room.word_hash[w] == STOP_WORDS[k]:
                    seen |= 1 << k
    stop_words = 0
    while seen:
        stop_words += seen & 1
        seen >>= 1
    count = max(words, 1)
    out[0] = characters
    out[1], out[2] = worded, worded_chars / max(worded, 1)
    out[3], out[4] = hashes / count, ellipses / count
    out[7], out[8] = alphabetic / count, stop_words
    out[30] = longest
    out[34] = (feeds - 1) / count
    out[35], out[36] = capitals / max(letters, 1), digits / max(characters, 1)
    out[37] = symbols / max(characters, 1)
    return words, breaks, feeds


@njit(inline="always")
def _finish_word(room, word, h, letters_hash, shift, length, flags):
    room.word_hash[word], room.word_chars[word], room.word_flags[word] = mixed(h), length, flags
    room.word_letters[word], room.word_shift[word] = letters_hash, shift
    room.before[word + 1] = room.before[word] + length


@njit
def _strip(data, start, end, classes):
    """str.strip as a span."""
    while start < end:
        point, size = decode(data, start)
        if not _class(classes, point) & SPACE:
            break
        start += size
    while start < end:
        back = _last(data, start, end)
        point, _ = decode(data, back)
        if not _class(classes, point) & SPACE:
            break
        end = back
    return start, end


@njit(inline="always")
def _last(data, start, end):
    """Where the last character before `end` begins."""
    end -= 1
    while end > start and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


@njit(inline="always")
def _ends_in_dots(data, start, end):
    return end - start >= 3 and data[end - 1] == 46 and data[end - 2] == 46 and data[end - 3] == 46


@njit
def _lines(data, breaks, classes, out):
    """Gopher's bullet and ellipsis lines, over str.splitlines' lines."""
    bullets = ellipses = code = 0
    for k in range(len(breaks)):
        start, end = _strip(data, breaks[k, 0], breaks[k, 1], classes)
        if start == end:
            continue
        first, _ = decode(data, start)
        bullets += first == 45 or first == 0x2022
        last, _ = decode(data, _last(data, start, end))
        ellipses += last == 0x2026 or _ends_in_dots(data, start, end)
        code += last == 59 or last == 123 or last == 125
    count = max(len(breaks), 1)
    out[5], out[6], out[38] = bullets / count, ellipses / count, code / count


@njit
def _measure_span(data, start, end):
    """64-bit hash and number of characters of a span."""
    h, characters = _FNV_OFFSET, 0
    for i in range(start, end):
        h = (h ^ np.uint64(data[i])) * _FNV_PRIME
        characters += data[i] & 0xC0 != 0x80
    return mixed(h), characters


@njit(inline="always")
def _slot(room, mask, key):
    """Where `key` stands or may be put; equal keys meet in one slot while the stamp holds."""
    at = np.int64((key * _NGRAM) >> np.uint64(20)) & mask
    while room.stamps[at] == room.stamp[0] and room.keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(inline="always")
def _clear(room, elements):
    """Forget all keys; returns the mask of a table that fits `elements`."""
    room.stamp[0] += 1
    return _mask(elements)


@njit(inline="always")
def _repeat(room, mask, key):
    """0 for a new key, else how often it was there before."""
    at = _slot(room, mask, key)
    if room.stamps[at] != room.stamp[0]:
        room.stamps[at], room.keys[at], room.counts[at] = room.stamp[0], key, 0
        return 0
    room.counts[at] += 1
    return room.counts[at]


@njit
def _repeated_lines(data, start, end, feeds, classes, count_all, size, words, room, out):
    """Repeated lines and paragraphs (Gopher), and FineWeb's rules on lines."""
    # ---- lines: what one or more line feeds part; an empty one only stands at either end
    mask = _clear(room, len(feeds))
    lines = repeated = repeated_chars = 0
    full = short = terminal = full_repeated_chars = 0
    for k in range(len(feeds)):
        a, b = feeds[k, 0], feeds[k, 1]
        if a == b and k > 0 and k < len(feeds) - 1:
            continue
        key, characters = _measure_span(data, a, b)
        times = _repeat(room, mask, key)
        lines += 1
        if times:
            first_too = 1 + (count_all and times == 1)
            repeated += first_too
            repeated_chars += characters * first_too
        stripped, rest = _strip(data, a, b, classes)
        if stripped < rest:
            full += 1
            full_repeated_chars += characters * (times > 0)
            short += characters <= SHORT_LINE
            point, _ = decode(data, _last(data, a, b))
            terminal += _class(classes, point) & TERMINAL != 0
    out[9], out[10] = repeated / max(lines, 1), repeated_chars / size
    out[31], out[32] = terminal / max(full, 1), short / max(full, 1)
    out[33] = full_repeated_chars / max(out[0] - (len(feeds) - 1), 1)

    # ---- paragraphs: what two or more line feeds part, of the text without outer blanks
    a, b = _strip(data, start, end, classes)
    mask = _clear(room, len(feeds))
    paragraphs = repeated = repeated_chars = 0
    i = begin = a
    while i <= b:
        if i == b or (data[i] == 10 and i + 1 < b and data[i + 1] == 10):
            key, characters = _measure_span(data, begin, i)
            times = _repeat(room, mask, key)
            paragraphs += 1
            if times:
                first_too = 1 + (count_all and times == 1)
                repeated += first_too
                repeated_chars += characters * first_too
            while i < b and data[i] == 10:
                i += 1
            if i == b:
                break
            begin = i
        i += 1
    out[11], out[12] = repeated / max(paragraphs, 1), repeated_chars / size


@njit
def _ngrams(words, size, by_letters, room, out):
    """Shares of characters in the most frequent 2- to 4-gram and in repeated 5- to 10-grams.

    An n-gram can only repeat where its first n-1 words do, so each length looks at the places that the length before
    left over; where nothing repeats, nothing longer does. (Not so by letters: each length then looks everywhere.)
    """
    for i in range(words):
        room.gram[i] = room.word_hash[i]
        room.slot[i] = i
    live = words  # room.slot[:live]: first words of n-grams that may repeat, ascending
    for n in range(2, 11):
        if by_letters and n > 4:
            live = _letter_grams(words, n, room)
        while live and room.slot[live - 1] + n > words:
            live -= 1
        if n <= 4 and words >= n and live == 0:  # all differ: the first one counts once
            out[11 + n] = (room.before[n] + n - 1) / size
            continue
        if live == 0:
            continue
        mask = _clear(room, live)
        best, best_first = 0, 0
        for k in range(live):
            i = room.slot[k]
            key = room.gram[i]
            if n <= 4 or not by_letters:
                key = room.gram[i] = key * _NGRAM + room.word_hash[i + n - 1]
            at = _slot(room, mask, key)
            if room.stamps[at] != room.stamp[0]:
                room.stamps[at], room.keys[at] = room.stamp[0], key
                room.counts[at], room.firsts[at] = 1, i
            else:
                room.counts[at] += 1
            if room.counts[at] > best or (room.counts[at] == best and room.firsts[at] < best_first):
                best, best_first = room.counts[at], room.firsts[at]
        if n <= 4:
            if best == 1:
                best_first = 0
            out[11 + n] = (room.before[best_first + n] - room.before[best_first] + n - 1) * best / size
        kept = repeated_chars = free = 0
        for k in range(live):
            i = room.slot[k]
            at = _slot(room, mask, room.gram[i])
            if room.counts[at] > 1 or room.counts[at] < 0:
                if n > 4 and i >= free:
                    if room.counts[at] < 0:  # negative: the scan has met it
                        repeated_chars += room.before[i + n] - room.before[i]
                        free = i + n
                    else:
                        room.counts[at] = -room.counts[at]
                room.slot[kept] = i
                kept += 1
        live = kept
        if n > 4:
            out[11 + n] = repeated_chars / size


@njit
def _letter_grams(words, n, room):
    """All n-grams by their letters: the words' polynomials, each shifted by the letters that follow it."""
    for i in range(words - n + 1):
        key = np.uint64(0)
        for k in range(i, i + n):
            key = key * room.word_shift[k] + room.word_letters[k]
        room.gram[i], room.slot[i] = key, i
    return max(words - n + 1, 0)


@njit
def _c4(data, breaks, classes, line, out):
    """C4's page rules, counted over the lines that it keeps, with and without the rule on terminal punctuation."""
    javascript = policy = 0
    sentences = curly = lorem = 0
    terminal_sentences = terminal_curly = terminal_lorem = 0
    for k in range(len(breaks)):
        start, end = _strip(data, breaks[k, 0], breaks[k, 1], classes)
        length, readable = _c4_line(data, start, end, classes, line)
        if not readable:
            continue
        last = line[length - 1] if length else np.uint8(0)
        terminal = (last == 46 or last == 63 or last == 33 or last == 34 or last == 39) and not _ends_in_dots(
            line, 0, length
        )
        has_lorem, has_javascript, has_curly, has_policy = _phrases(line, length)
        lorem += has_lorem
        terminal_lorem += has_lorem and terminal
        if has_javascript:
            javascript += 1
            continue
        curly += has_curly
        terminal_curly += has_curly and terminal
        if has_policy:
            policy += 1
            continue
        found = _sentences(line, length, classes)
        sentences += found
        if terminal:
            terminal_sentences += found
    out[22], out[23], out[24] = sentences, curly, lorem
    out[25], out[26], out[27] = terminal_sentences, terminal_curly, terminal_lorem
    out[28], out[29] = javascript, policy


@njit
def _c4_line(data, start, end, classes, line):
    """Copy a stripped line without citation marks ([3], [edit], [citation needed]).

    Returns:
        Bytes copied, and whether C4 reads the line: at least three words, none over 1,000 characters.
    """
    words = length = 0
    i, written, inside, readable = start, 0, False, True
    skip = start
    while i < end:
        point, size = decode(data, i)
        if _class(classes, point) & SPACE:
            inside = False
        else:
            if not inside:
                words, length, inside = words + 1, 0, True
            length += 1
            readable = readable and length <= LONG_WORD
        if point == 91 and i >= skip:
            skip = max(skip, _citation_end(data, i, end, classes))
        if i >= skip:
            for k in range(size):
                line[written] = data[i + k]
                written += 1
        i += size
    return written, readable and words >= FEW_WORDS


_EDIT, _NEEDED = _ascii("edit]"), _ascii("citation needed]")


@njit
def _citation_end(data, i, end, classes):
    """End of the citation mark that opens at i, or i where none does."""
    j = i + 1
    while j < end:
        point, size = decode(data, j)
        if not _class(classes, point) & DECIMAL:
            break
        j += size
    if j < end and data[j] == 93:
        return j + 1
    if _starts(data, i + 1, end, _EDIT):
        return i + 1 + len(_EDIT)
    if _starts(data, i + 1, end, _NEEDED):
        return i + 1 + len(_NEEDED)
    return i


@njit
def _starts(data, i, end, phrase):
    if i + len(phrase) > end:
        return False
    for k in range(len(phrase)):  # noqa: SIM110  (a generator would not compile)
        if data[i + k] != phrase[k]:
            return False
    return True


_LOREM, _SCRIPT = _ascii("lorem ipsum"), _ascii("javascript")
_TERMS, _PRIVACY, _COOKIE = _ascii("terms of use"), _ascii("privacy policy"), _ascii("cookie policy")
_USES, _USE_OF, _USE = _ascii("uses cookies"), _ascii("use of cookies"), _ascii("use cookies")


@njit
def _phrases(line, length):
    """Lower-case a line's ASCII in place; whether it has C4's phrases.

    Each phrase is looked for where a letter that is rare in English stands in it.
    """
    lorem = javascript = curly = policy = False
    for i in range(length):
        b = line[i]
        if 65 <= b <= 90:
            line[i] = b | 32
        elif b == 123:
            curly = True
    for i in range(length):
        b = line[i]
        if b == 106:  # j
            javascript = javascript or _is_at(line, i, length, _SCRIPT)
        elif b == 109:  # m
            lorem = lorem or _is_at(line, i - 4, length, _LOREM)
        elif b == 102:  # f
            policy = policy or _is_at(line, i - 7, length, _TERMS)
        elif b == 118:  # v
            policy = policy or _is_at(line, i - 3, length, _PRIVACY)
        elif b == 107 or (b == _KELVIN[2] and i > 1 and line[i - 1] == _KELVIN[1] and line[i - 2] == _KELVIN[0]):
            start = i - 3 if b == 107 else i - 5
            policy = (
                policy
                or _is_at(line, start, length, _COOKIE)
                or _is_at(line, start - 5, length, _USES)
                or _is_at(line, start - 7, length, _USE_OF)
                or _is_at(line, start - 4, length, _USE)
            )
    return lorem, javascript, curly, policy


@njit
def _is_at(line, i, length, phrase):
    """Whether a phrase stands at byte i; the Kelvin sign is a k."""
    if i < 0:
        return False
    for k in range(len(phrase)):
        if i >= length:
            return False
        if line[i] == _KELVIN[0] and phrase[k] == 107 and i + 2 < length:
            if line[i + 1] != _KELVIN[1] or line[i + 2] != _KELVIN[2]:
                return False
            i += 3
            continue
        if line[i] != phrase[k]:
            return False
        i += 1
    return True


@njit
def _sentences(line, length, classes):
    """Sentences of a line: marks . ! ? with closing quotes before a blank or the end, and what is left after the last.

    As the expression `[.!?]+["')\\]]*(?=\\s|$)` finds them.
    """
    ends, after, i = 0, 0, 0
    while i < length:
        b = line[i]
        if b == 46 or b == 33 or b == 63:
            j = i + 1
            while j < length and (line[j] == 46 or line[j] == 33 or line[j] == 63):
                j += 1
            marks = j
            while j < length and (line[j] == 34 or line[j] == 39 or line[j] == 41 or line[j] == 93):
                j += 1
            if j == length or _class(classes, decode(line, j)[0]) & SPACE:
                ends += 1
                after = j
                i = j
                continue
            i = marks
            continue
        i += 1
    rest_start, rest_end = _strip(line, after, length, classes)
    return ends + (1 if ends == 0 or rest_start < rest_end else 0)
