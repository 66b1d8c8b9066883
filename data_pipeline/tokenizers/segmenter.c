/* Random segmentations of texts: random_segmentation.py, which explains them, in C.

       pieces ──segmenter_new──▶ trie ──segmenter_sample(texts, seeds)──▶ ids of all texts, flat

   Draws, sums and comparisons are those of the Python, in the same order and in the same doubles,
   so the ids are equal. hatch_build.py compiles this file, compiled_segmentation.py loads it.

   Texts are code points. Node 0 of the trie is the empty text, and stands for "no node" where a
   text is not the beginning of any piece. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "Sums in more than the bits of a double would differ from Python's."
#endif

#define SPACE 0x2581u /* "▁" */
#define DRAW_BITS 53
#define NONE UINT32_MAX

/* The source that this was compiled from, so that an older library is not taken for this one. */
const char *segmenter_source(void) { return SOURCE_SHA256; }

/* -- The pieces, as a trie: of BPE's from their first character on, of a unigram model's from their
      last, because merges look forward and last pieces backward -- */

typedef struct {
    uint32_t parent, character, child; /* child 0: the slot is free */
} Edge;

typedef struct {
    Edge *edges; /* open addressing */
    uint32_t mask;
    int32_t *id;      /* by node; -1 where no piece ends */
    double *score;    /* by node */
    uint32_t nodes, longest; /* longest: characters of a piece */
    int32_t unknown;
    int32_t bytes[256]; /* ids of the pieces that spell unknown characters; [0] is -1: none */
    int words;          /* whether no piece reaches across a space */
    int unigram;        /* or BPE */
    double unknown_score;
} Segmenter;

static Edge *slot(const Segmenter *s, uint32_t parent, uint32_t character) {
    uint64_t key = ((uint64_t)parent << 32 | character) * 0x9E3779B97F4A7C15u;
    uint32_t at = (uint32_t)(key >> 32) & s->mask;
    while (s->edges[at].child &&
           (s->edges[at].parent != parent || s->edges[at].character != character))
        at = (at + 1) & s->mask;
    return &s->edges[at];
}

static uint32_t child(const Segmenter *s, uint32_t parent, uint32_t character) {
    return slot(s, parent, character)->child;
}

void segmenter_free(Segmenter *s) {
    if (s) {
        free(s->edges);
        free(s->id);
        free(s->score);
        free(s);
    }
}

/* NULL when memory is short.
   text: the pieces one after the other; lengths, ids, scores: [count]; bytes: [256] or NULL. */
Segmenter *segmenter_new(const uint32_t *text, const int64_t *lengths, const int32_t *ids,
                         const double *scores, int64_t count, int32_t unknown,
                         double unknown_score, const int32_t *bytes, int words, int unigram) {
    uint64_t characters = 0, size = 16;
    for (int64_t i = 0; i < count; i++) characters += (uint64_t)lengths[i];
    if (characters > 1u << 28) return NULL;
    while (size < 3 * (characters + 1)) size *= 2;
    Segmenter *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->edges = calloc(size, sizeof *s->edges);
    s->id = malloc((characters + 1) * sizeof *s->id);
    s->score = calloc(characters + 1, sizeof *s->score);
    if (!s->edges || !s->id || !s->score) {
        segmenter_free(s);
        return NULL;
    }
    s->mask = (uint32_t)(size - 1);
    s->nodes = 1;
    s->id[0] = -1;
    for (int64_t i = 0; i < count; i++) {
        uint32_t node = 0;
        for (int64_t k = 0; k < lengths[i]; k++) {
            uint32_t character = text[unigram ? lengths[i] - 1 - k : k];
            Edge *edge = slot(s, node, character);
            if (!edge->child) {
                *edge = (Edge){node, character, s->nodes++};
                s->id[edge->child] = -1;
            }
            node = edge->child;
        }
        s->id[node] = ids[i];
        s->score[node] = scores[i];
        if (lengths[i] > s->longest) s->longest = (uint32_t)lengths[i];
        text += lengths[i];
    }
    s->unknown = unknown;
    s->unknown_score = unknown_score;
    s->bytes[0] = -1;
    if (bytes) memcpy(s->bytes, bytes, sizeof s->bytes);
    s->words = words;
    s->unigram = unigram;
    return s;
}

/* -- What is written -- */

typedef struct {
    const Segmenter *s;
    int32_t *ids, *first; /* where the next id goes, and where those of this text begin */
} Output;

static void put(Output *out, int32_t id) {
    /* Neighbouring unknown characters are one piece. */
    if (id == out->s->unknown && out->ids > out->first && out->ids[-1] == id) return;
    *out->ids++ = id;
}

static void put_unknown(Output *out, uint32_t c) {
    const int32_t *bytes = out->s->bytes;
    if (bytes[0] < 0) {
        put(out, out->s->unknown);
    } else if (c < 0x80) {
        put(out, bytes[c]);
    } else if (c < 0x800) {
        put(out, bytes[0xC0 | c >> 6]);
        put(out, bytes[0x80 | (c & 0x3F)]);
    } else if (c < 0x10000) {
        put(out, bytes[0xE0 | c >> 12]);
        put(out, bytes[0x80 | (c >> 6 & 0x3F)]);
        put(out, bytes[0x80 | (c & 0x3F)]);
    } else {
        put(out, bytes[0xF0 | c >> 18]);
        put(out, bytes[0x80 | (c >> 12 & 0x3F)]);
        put(out, bytes[0x80 | (c >> 6 & 0x3F)]);
        put(out, bytes[0x80 | (c & 0x3F)]);
    }
}

static void put_node(Output *out, uint32_t node, const uint32_t *character) {
    if (node && out->s->id[node] >= 0)
        put(out, out->s->id[node]);
    else
        put_unknown(out, *character);
}

/* Output `number` of the SplitMix64 generator that starts at `seed`, see random_keys.py. */
static int64_t draw(uint64_t seed, uint64_t number) {
    uint64_t z = (number + 1) * 0x9E3779B97F4A7C15u + seed;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (int64_t)((z ^ z >> 31) >> (64 - DRAW_BITS));
}

/* -- Memory, which grows with the longest word -- */

typedef struct {
    double score;
    uint32_t left, middle, end, node; /* the two symbols' characters, and the piece they make */
} Merge;

typedef struct {
    int64_t threshold; /* draws below it choose this one or one before it; the last has none */
    uint32_t node;     /* of the piece; 0: an unknown character */
    uint32_t start;
} LastPiece;

typedef struct {
    /* BPE, by the first character of a symbol: where it ends, where the one before it begins, and
       its node; end NONE: merged into the symbol before it. */
    uint32_t *end, *before, *node;
    Merge *heap;
    /* Unigram, by the end of a prefix: log Σ probability^alpha, and its last pieces. */
    double *log_sum;
    uint64_t *stop; /* behind its last pieces in `last` */
    LastPiece *last, *chosen;
    double *sums; /* of one end */
    uint64_t room, last_room;
} Scratch;

static void free_scratch(Scratch *m) {
    free(m->end);
    free(m->before);
    free(m->node);
    free(m->heap);
    free(m->log_sum);
    free(m->stop);
    free(m->last);
    free(m->chosen);
    free(m->sums);
}

static int resize(void *array, uint64_t count, size_t size) {
    void *moved = realloc(*(void **)array, count * size);
    if (moved) *(void **)array = moved;
    return moved != NULL;
}

static int make_room(Scratch *m, uint64_t characters, int unigram) {
    if (m->room && characters <= m->room) return 1;
    uint64_t room = characters < 64 ? 64 : characters + characters / 2;
    int made = unigram ? resize(&m->log_sum, room + 1, sizeof *m->log_sum) &&
                             resize(&m->stop, room + 1, sizeof *m->stop) &&
                             resize(&m->chosen, room, sizeof *m->chosen)
                       : resize(&m->end, room, sizeof *m->end) &&
                             resize(&m->before, room, sizeof *m->before) &&
                             resize(&m->node, room, sizeof *m->node) &&
                             resize(&m->heap, 3 * room, sizeof *m->heap);
    if (made) m->room = room;
    return made;
}

/* -- BPE-dropout -- */

static int sooner(const Merge *a, const Merge *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void push(Merge *heap, uint64_t *size, Merge merge) {
    uint64_t at = (*size)++;
    while (at && sooner(&merge, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = merge;
}

static Merge pop(Merge *heap, uint64_t *size) {
    Merge best = heap[0], moved = heap[--*size];
    uint64_t at = 0, below;
    while ((below = 2 * at + 1) < *size) {
        if (below + 1 < *size && sooner(&heap[below + 1], &heap[below])) below++;
        if (!sooner(&heap[below], &moved)) break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = moved;
    return best;
}

/* Offers the merge of the symbol at `left` and the one behind it, if it makes a piece. */
static void offer(const Segmenter *s, Scratch *m, uint64_t *size, const uint32_t *word,
                  uint32_t length, uint32_t left) {
    uint32_t middle = m->end[left], node = m->node[left];
    if (!node || middle == length) return;
    for (uint32_t at = middle; at < m->end[middle]; at++)
        if (!(node = child(s, node, word[at]))) return;
    if (s->id[node] >= 0)
        push(m->heap, size, (Merge){s->score[node], left, middle, m->end[middle], node});
}

static int merge_word(Output *out, Scratch *m, const uint32_t *word, uint32_t length,
                      int64_t threshold, uint64_t seed, uint64_t number) {
    const Segmenter *s = out->s;
    if (!make_room(m, length, 0)) return 0;
    uint64_t size = 0;
    for (uint32_t at = 0; at < length; at++) {
        m->end[at] = at + 1;
        m->before[at] = at ? at - 1 : NONE;
        m->node[at] = child(s, 0, word[at]);
    }
    for (uint32_t at = 0; at < length; at++) offer(s, m, &size, word, length, at);
    while (size) {
        Merge merge = pop(m->heap, &size);
        uint32_t left = merge.left, middle = merge.middle, end = merge.end;
        if (m->end[left] != middle || m->end[middle] != end) continue; /* one of them has grown */
        if (draw(seed, number++) < threshold) continue;                /* left out */
        m->end[left] = end;
        m->end[middle] = NONE;
        m->node[left] = merge.node;
        if (end < length) m->before[end] = left;
        if (left) offer(s, m, &size, word, length, m->before[left]);
        offer(s, m, &size, word, length, left);
    }
    for (uint32_t at = 0; at < length; at = m->end[at]) put_node(out, m->node[at], word + at);
    return 1;
}

/* -- Subword regularisation -- */

/* The pieces that can end at `end`, the longest first, their thresholds, and log_sum[end]. */
static int filter(const Segmenter *s, Scratch *m, const uint32_t *word, uint32_t end,
                  double alpha) {
    uint64_t first = m->stop[end - 1], count = 0;
    if (first + s->longest + 1 > m->last_room) {
        uint64_t room = 2 * (first + s->longest + 1);
        if (!resize(&m->last, room, sizeof *m->last)) return 0;
        m->last_room = room;
    }
    LastPiece *last = m->last + first;
    uint32_t node = 0;
    for (uint32_t start = end; start-- > 0;) {
        node = child(s, node, word[start]);
        if (node && s->id[node] >= 0)
            last[count++] = (LastPiece){0, node, start};
        else if (start == end - 1)
            last[count++] = (LastPiece){0, 0, start};
        if (!node) break;
    }
    for (uint64_t a = 0, b = count - 1; a < b; a++, b--) {
        LastPiece other = last[a];
        last[a] = last[b];
        last[b] = other;
    }
    double highest = -INFINITY, sum = 0.0;
    for (uint64_t k = 0; k < count; k++) {
        double score = last[k].node ? s->score[last[k].node] : s->unknown_score;
        m->sums[k] = m->log_sum[last[k].start] + alpha * score;
        if (m->sums[k] > highest) highest = m->sums[k];
    }
    for (uint64_t k = 0; k < count; k++) m->sums[k] = sum += exp(m->sums[k] - highest);
    for (uint64_t k = 0; k + 1 < count; k++)
        last[k].threshold = (int64_t)(m->sums[k] / sum * (double)(1LL << DRAW_BITS));
    m->log_sum[end] = highest + log(sum);
    m->stop[end] = first + count;
    return 1;
}

static int filter_word(const Segmenter *s, Scratch *m, const uint32_t *word, uint32_t length,
                       double alpha) {
    if (!make_room(m, length, 1)) return 0;
    if (!m->sums && !resize(&m->sums, s->longest + 1, sizeof *m->sums)) return 0;
    m->log_sum[0] = 0.0;
    m->stop[0] = 0;
    for (uint32_t end = 1; end <= length; end++)
        if (!filter(s, m, word, end, alpha)) return 0;
    return 1;
}

static int sample_word(Output *out, Scratch *m, const uint32_t *word, uint32_t length,
                       double alpha, uint64_t seed, uint64_t number) {
    const Segmenter *s = out->s;
    if (!filter_word(s, m, word, length, alpha)) return 0;
    uint32_t count = 0;
    for (uint32_t end = length; end; end = m->chosen[count++].start) {
        uint64_t k = m->stop[end - 1];
        int64_t drawn = draw(seed, number + end - 1);
        while (k + 1 < m->stop[end] && m->last[k].threshold <= drawn) k++;
        m->chosen[count] = m->last[k];
    }
    while (count--) put_node(out, m->chosen[count].node, word + m->chosen[count].start);
    return 1;
}

/* All thresholds of a word, so that their last bits can be compared; their number, or -1 when
   memory is short. thresholds: written, with room for the longest piece for each character. */
int64_t segmenter_thresholds(const Segmenter *s, const uint32_t *word, uint32_t length,
                             double alpha, int64_t *thresholds) {
    Scratch scratch = {0};
    int64_t count = -1;
    if (filter_word(s, &scratch, word, length, alpha)) {
        count = 0;
        for (uint32_t end = 1; end <= length; end++)
            for (uint64_t k = scratch.stop[end - 1]; k + 1 < scratch.stop[end]; k++)
                thresholds[count++] = scratch.last[k].threshold;
    }
    free_scratch(&scratch);
    return count;
}

/* -- Texts -- */

static int sample_text(Output *out, Scratch *m, const uint32_t *text, int64_t length,
                       double alpha, uint64_t seed) {
    const Segmenter *s = out->s;
    int64_t threshold = (int64_t)(alpha * (double)(1LL << DRAW_BITS));
    for (int64_t start = 0, end; start < length; start = end) {
        for (end = start + 1; end < length && !(s->words && text[end] == SPACE);) end++;
        uint32_t size = (uint32_t)(end - start);
        uint64_t number = (uint64_t)start;
        /* A word of n characters has at most n - 1 merges at first and two more after each. */
        if (!(s->unigram ? sample_word(out, m, text + start, size, alpha, seed, number)
                         : merge_word(out, m, text + start, size, threshold, seed, 3 * number)))
            return 0;
    }
    return 1;
}

/* The ids of all texts, each with `end` behind it; their number, or -1 when memory is short.
   texts: one after the other; lengths, seeds, counts: [texts]; counts: ids of each text, written;
   ids: written, with room for an id (if characters can be bytes: four) for each character, and for
   the ends. */
int64_t segmenter_sample(const Segmenter *s, const uint32_t *texts, const int64_t *lengths,
                         const uint64_t *seeds, int64_t count, double alpha, int32_t end,
                         int32_t *ids, int32_t *counts) {
    Scratch scratch = {0};
    Output out = {s, ids, ids};
    int fits = 1;
    for (int64_t i = 0; fits && i < count; texts += lengths[i++]) {
        out.first = out.ids;
        fits = lengths[i] < NONE / 2 &&
               sample_text(&out, &scratch, texts, lengths[i], alpha, seeds[i]);
        *out.ids++ = end;
        counts[i] = (int32_t)(out.ids - out.first);
    }
    free_scratch(&scratch);
    return fits ? out.ids - ids : -1;
}
