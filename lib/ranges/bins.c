/* SPDX-License-Identifier: MIT */
/*
 * bins.c - arithmetic of free ranges: two-level bins over nodes that lie apart from what they
 * manage.
 *
 *   bin = (row, column): sizes 1 .. 31 exactly, then 32 bins for each power of two
 *   region:  [node]<->[node]<->[node]    physical neighbours, fenced at the region's ends
 *
 * Invariant: nodes of a region cover it without holes, two free ones never touch, and a free node
 * is in the bin of its size; bitmaps tell which bins hold one. Never touches the memory it manages
 * and makes no system call. Freeing needs no node. Indices are checked against the arena's own
 * bounds before they are followed, and walks are bounded, because bins and nodes may lie where a
 * guest can write, even while a call runs: then anything may be answered, but nothing outside is
 * touched. So an index is read once, into a local or an argument, and that copy is checked and
 * used.
 *
 * Source: M. Masmano et al., TLSF, 2004 (two levels, two bitmaps, good fit); S. Aaltonen,
 * OffsetAllocator, 2023 (out of band, mantissa classes); the rest against the defects of both:
 * padding and tail go back, and the last resort is exact.
 */
#include "ranges/bins.h"

#include <string.h>

#define BEST_LOOKS 16u
#define BEST_STEPS (4 * BEST_LOOKS)

/* --- classes --- */

static uint32_t class_down(uint32_t size)
{
	uint32_t log, row;

	if (size < MS_BINS_COLUMNS)
		return size;
	log = 31 - (uint32_t)__builtin_clz(size);
	row = log - 4;
	return row * MS_BINS_COLUMNS + ((size >> (row - 1)) & (MS_BINS_COLUMNS - 1));
}

/* The first class all of whose sizes are at least `size`. */
static uint32_t class_up(uint32_t size)
{
	uint32_t row;

	if (size < MS_BINS_COLUMNS)
		return size;
	row = 31 - (uint32_t)__builtin_clz(size) - 4;
	return class_down(size + (1u << (row - 1)) - 1);
}

/* --- nodes --- */

static struct ms_node *node_at(const struct ms_arena *arena, uint32_t index)
{
	return MS_LIKELY(index < arena->node_max) ? &arena->nodes[index] : NULL;
}

static uint32_t node_new(struct ms_arena *arena)
{
	struct ms_bins *bins = arena->bins;
	uint32_t index = bins->rest_first, resting = bins->resting, count = bins->node_count;
	struct ms_node *node;

	if (resting > MS_BINS_REST || (resting && count >= arena->node_max)) {
		node = node_at(arena, index);
		if (!node)
			return MS_BINS_NONE;
		bins->rest_first = node->next;
		bins->resting = resting - 1;
		return index;
	}
	if (count >= arena->node_max)
		return MS_BINS_NONE;
	bins->node_count = count + 1;
	return count;
}

/* It rests, behind those freed before. */
static void node_rest(struct ms_arena *arena, uint32_t index)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index];
	struct ms_node *last = bins->resting ? node_at(arena, bins->rest_last) : NULL;

	node->size = 0;
	node->next = MS_BINS_NONE;
	if (last)
		last->next = index;
	else
		bins->rest_first = index;
	bins->rest_last = index;
	bins->resting++;
}

/* --- bins --- */

/* The head lies lower than whoever came after it: what is left free gathers at the other end, and
 * large ranges find room there much longer (Wilson et al., 1995: address order), for one look. */
static void bin_put(struct ms_arena *arena, uint32_t index)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index], *head, *next;
	uint32_t class = class_down(node->size & ~MS_BINS_USED);
	uint32_t row = class / MS_BINS_COLUMNS, column = class % MS_BINS_COLUMNS;

	node->prev = MS_BINS_NONE;
	node->next = bins->head[row][column];
	head = next = node_at(arena, node->next);
	if (head && head->offset < node->offset) {
		node->prev = node->next;
		node->next = head->next;
		head->next = index;
		next = node_at(arena, node->next);
	} else {
		bins->head[row][column] = index;
	}
	if (next)
		next->prev = index;
	bins->columns[row] |= 1u << column;
	bins->rows |= 1u << row;
	bins->free_units += node->size;
}

static void bin_take(struct ms_arena *arena, uint32_t index)
{
	struct ms_bins *bins = arena->bins;
	struct ms_node *node = &arena->nodes[index];
	struct ms_node *prev = node_at(arena, node->prev), *next = node_at(arena, node->next);
	uint32_t class = class_down(node->size & ~MS_BINS_USED);
	uint32_t row = class / MS_BINS_COLUMNS, column = class % MS_BINS_COLUMNS;

	bins->free_units -= node->size;
	if (next)
		next->prev = node->prev;
	if (prev) {
		prev->next = node->next;
		return;
	}
	bins->head[row][column] = node->next;
	if (next)
		return;
	bins->columns[row] &= ~(1u << column);
	if (bins->columns[row] == 0)
		bins->rows &= ~(1u << row);
}

/* The first class from `class` on that holds a node, or MS_BINS_NONE. */
static uint32_t class_from(const struct ms_bins *bins, uint32_t class)
{
	uint32_t row = class / MS_BINS_COLUMNS, columns, rows;

	if (row >= MS_BINS_ROWS)
		return MS_BINS_NONE;
	columns = bins->columns[row] & ~0u << (class % MS_BINS_COLUMNS);
	if (columns)
		return row * MS_BINS_COLUMNS + (uint32_t)__builtin_ctz(columns);
	rows = row + 1 < MS_BINS_ROWS ? bins->rows & ~0u << (row + 1) & ((1u << MS_BINS_ROWS) - 1)
				      : 0;
	if (!rows)
		return MS_BINS_NONE;
	row = (uint32_t)__builtin_ctz(rows);
	columns = bins->columns[row];
	return columns ? row * MS_BINS_COLUMNS + (uint32_t)__builtin_ctz(columns) : MS_BINS_NONE;
}

static uint32_t head_of(const struct ms_bins *bins, uint32_t class)
{
	return bins->head[class / MS_BINS_COLUMNS][class % MS_BINS_COLUMNS];
}

/* --- choosing --- */

/* Units before the first aligned one of a free node. */
static uint32_t padding(const struct ms_arena *arena, const struct ms_node *node, uint32_t align)
{
	uint32_t region = node->region, bias = region < arena->region_max ? arena->bias[region] : 0;

	return (0u - (bias + node->offset)) & (align - 1);
}

static bool fits(
	const struct ms_arena *arena, const struct ms_node *node, uint32_t size, uint32_t align)
{
	return (uint64_t)padding(arena, node, align) + size <= node->size;
}

/* Nodes of one class that fit: the first, or of `looks` the one that leaves least. *steps: how many
 * nodes may be looked at yet: each is in one class. */
static uint32_t look_through(const struct ms_arena *arena, uint32_t class, uint32_t size,
	uint32_t align, uint32_t looks, uint32_t *steps)
{
	uint32_t index = head_of(arena->bins, class), best = MS_BINS_NONE, least = MS_BINS_NONE;

	for (; *steps; --*steps) {
		const struct ms_node *node = node_at(arena, index);
		if (!node || (best != MS_BINS_NONE && looks == 0))
			break;
		looks -= looks > 0;
		if (!ms_bins_used(node) && fits(arena, node, size, align) && node->size < least) {
			best = index;
			least = node->size;
		}
		index = node->next;
	}
	return best;
}

/* O(1): two heads, then a class in which everything fits. */
static uint32_t choose_fast(const struct ms_arena *arena, uint32_t size, uint32_t align)
{
	uint32_t class = class_from(arena->bins, class_up(size)), steps = arena->node_max;

	for (int i = 0; i < 2 && class != MS_BINS_NONE; i++) {
		uint32_t index = head_of(arena->bins, class);
		const struct ms_node *node = node_at(arena, index);
		if (node && !ms_bins_used(node) && fits(arena, node, size, align))
			return index;
		class = class_from(arena->bins, class + 1);
	}
	if (class == MS_BINS_NONE || align == 1 || size + (uint64_t)align > MS_BINS_UNITS_MAX)
		return MS_BINS_NONE;
	class = class_from(arena->bins, class_up(size + align - 1));
	return class == MS_BINS_NONE ? MS_BINS_NONE
				     : look_through(arena, class, size, align, 0, &steps);
}

/* Every node that could fit and that the fast way may have passed over; or the first `steps`. */
static uint32_t choose_exact(
	const struct ms_arena *arena, uint32_t size, uint32_t align, uint32_t looks, uint32_t steps)
{
	uint32_t last =
		class_up((uint32_t)ms_min(size + (uint64_t)align - 1, MS_BINS_UNITS_MAX - 1));
	uint32_t class = class_from(arena->bins, class_down(size)), index;

	while (class != MS_BINS_NONE && class <= last && steps) {
		index = look_through(arena, class, size, align, looks, &steps);
		if (index != MS_BINS_NONE)
			return index;
		class = class_from(arena->bins, class + 1);
	}
	return MS_BINS_NONE;
}

/* --- cutting --- */

/* Is it the region's first, or last? */
static void set_ends(struct ms_arena *arena, uint32_t index)
{
	const struct ms_node *node = &arena->nodes[index];
	uint32_t region = node->region;

	if (region >= arena->region_max)
		return;
	if (node->left == MS_BINS_NONE)
		arena->first[region] = index;
	if (node->right == MS_BINS_NONE)
		arena->last[region] = index;
}

/* A free node of its own behind `node`, of the units that it gives up. `index` is the new one. */
static void split(struct ms_arena *arena, uint32_t left, uint32_t index, uint32_t units)
{
	struct ms_node *node = &arena->nodes[left], *made = &arena->nodes[index];
	struct ms_node *right = node_at(arena, node->right);

	made->region = node->region;
	made->offset = node->offset + units;
	made->size = ms_bins_size(node) - units;
	made->left = left;
	made->right = node->right;
	if (right)
		right->left = index;
	node->right = index;
	node->size = units | (node->size & MS_BINS_USED);
	set_ends(arena, index);
}

/* A new node before `index`, of its first units; the whole of it: `index` rests. */
static void split_front(struct ms_arena *arena, uint32_t index, uint32_t made, uint32_t units)
{
	struct ms_node *node = &arena->nodes[index], *front = &arena->nodes[made];
	struct ms_node *left = node_at(arena, node->left), *right = node_at(arena, node->right);
	bool whole = units == node->size;

	front->region = node->region;
	front->offset = node->offset;
	front->size = units;
	front->left = node->left;
	front->right = whole ? node->right : index;
	if (left)
		left->right = made;
	set_ends(arena, made);
	if (whole) {
		if (right)
			right->left = made;
		node_rest(arena, index);
		return;
	}
	node->left = made;
	node->offset += units;
	node->size -= units;
}

static uint32_t use(struct ms_arena *arena, uint32_t index)
{
	struct ms_node *node = &arena->nodes[index];

	arena->bins->live++;
	arena->bins->live_units += node->size;
	node->size |= MS_BINS_USED;
	node->next = 0;
	return index;
}

/* Take [offset, offset + size) out of a free node: a node that has rested becomes the range, so
 * that no handle comes back soon. Where no node is left the range keeps the tail. */
static uint32_t take(struct ms_arena *arena, uint32_t index, uint32_t offset, uint32_t size)
{
	struct ms_node *node = &arena->nodes[index];
	uint32_t before = offset - node->offset, made = node_new(arena), spare;

	if (made == MS_BINS_NONE && before)
		return MS_BINS_NONE;
	bin_take(arena, index);
	if (made == MS_BINS_NONE)
		return use(arena, index);
	if (before) {
		split(arena, index, made, before);
		bin_put(arena, index);
		spare = arena->nodes[made].size > size ? node_new(arena) : MS_BINS_NONE;
		if (spare != MS_BINS_NONE) {
			split(arena, made, spare, size);
			bin_put(arena, spare);
		}
		return use(arena, made);
	}
	split_front(arena, index, made, size);
	if (node->size)
		bin_put(arena, index);
	return use(arena, made);
}

uint32_t ms_bins_alloc(struct ms_arena *arena, uint32_t size, uint32_t align, bool best)
{
	uint32_t index = MS_BINS_NONE;

	__builtin_prefetch(
		&arena->nodes[arena->bins->rest_first]); /* only a wish, wherever it is */
	if (best)
		index = choose_exact(arena, size, align, BEST_LOOKS, BEST_STEPS);
	if (index == MS_BINS_NONE)
		index = choose_fast(arena, size, align);
	if (MS_UNLIKELY(index == MS_BINS_NONE))
		index = choose_exact(arena, size, align, 0, arena->node_max);
	if (index == MS_BINS_NONE)
		return MS_BINS_NONE;
	return take(arena, index,
		arena->nodes[index].offset + padding(arena, &arena->nodes[index], align), size);
}

uint32_t ms_bins_alloc_at(struct ms_arena *arena, uint32_t node, uint32_t offset, uint32_t size)
{
	return take(arena, node, offset, size);
}

/* --- giving back --- */

/* The right one's units become the left one's. Neither is in a bin. */
static void join(struct ms_arena *arena, uint32_t left, uint32_t right)
{
	struct ms_node *node = &arena->nodes[left], *gone = &arena->nodes[right];
	struct ms_node *behind = node_at(arena, gone->right);

	node->size += ms_bins_size(gone);
	node->right = gone->right;
	if (behind)
		behind->left = left;
	set_ends(arena, left);
	node_rest(arena, right);
}

/* The other way round: the left one rests. */
static void join_right(struct ms_arena *arena, uint32_t left, uint32_t right)
{
	struct ms_node *node = &arena->nodes[right], *gone = &arena->nodes[left];
	struct ms_node *before = node_at(arena, gone->left);

	node->offset = gone->offset;
	node->size += ms_bins_size(gone);
	node->left = gone->left;
	if (before)
		before->right = right;
	set_ends(arena, right);
	node_rest(arena, left);
}

static bool is_free(const struct ms_arena *arena, uint32_t index)
{
	const struct ms_node *node = node_at(arena, index);

	return node && !ms_bins_used(node) && node->size;
}

void ms_bins_free(struct ms_arena *arena, uint32_t index)
{
	struct ms_node *node = &arena->nodes[index];
	uint32_t left = node->left, right = node->right;

	node->size &= ~MS_BINS_USED;
	node->generation++;
	arena->bins->live--;
	arena->bins->live_units -= node->size;
	if (right != index && is_free(arena, right)) {
		bin_take(arena, right);
		join_right(arena, index, right);
		index = right;
	}
	if (left != index && is_free(arena, left)) {
		bin_take(arena, left);
		join(arena, left, index);
		index = left;
	}
	bin_put(arena, index);
}

/* --- in place --- */

static bool shrink(struct ms_arena *arena, uint32_t index, uint32_t size)
{
	struct ms_node *node = &arena->nodes[index];
	uint32_t spare, cut = ms_bins_size(node) - size, right = node->right;

	spare = node_new(arena);
	if (spare == MS_BINS_NONE)
		return false;
	split(arena, index, spare, size);
	arena->bins->live_units -= cut;
	if (is_free(arena, right)) {
		bin_take(arena, right);
		join(arena, spare, right);
	}
	bin_put(arena, spare);
	return true;
}

static bool grow(struct ms_arena *arena, uint32_t index, uint32_t size)
{
	struct ms_node *node = &arena->nodes[index], *right;
	uint32_t spare = node->right, more = size - ms_bins_size(node);

	if (!is_free(arena, spare))
		return false;
	right = &arena->nodes[spare];
	if (right->size < more)
		return false;
	bin_take(arena, spare);
	arena->bins->live_units += more;
	node->size += more;
	if (right->size > more) {
		right->offset += more;
		right->size -= more;
		bin_put(arena, spare);
		return true;
	}
	right->size = 0;
	join(arena, index, spare);
	return true;
}

bool ms_bins_resize(struct ms_arena *arena, uint32_t index, uint32_t size)
{
	uint32_t now = ms_bins_size(&arena->nodes[index]);

	if (size == now)
		return true;
	return size < now ? shrink(arena, index, size) : grow(arena, index, size);
}

/* --- regions --- */

void ms_bins_init(struct ms_bins *bins)
{
	memset(bins, 0, sizeof *bins);
	memset((void *)bins->head, 0xff, sizeof bins->head); /* MS_BINS_NONE */
}

uint32_t ms_bins_add(struct ms_arena *arena, uint32_t region, uint32_t units)
{
	uint32_t index = node_new(arena), generation;

	if (index == MS_BINS_NONE)
		return index;
	generation = arena->nodes[index].generation;
	arena->nodes[index] = (struct ms_node){.size = units,
		.left = MS_BINS_NONE,
		.right = MS_BINS_NONE,
		.generation = generation,
		.region = region};
	set_ends(arena, index);
	bin_put(arena, index);
	return index;
}

void ms_bins_remove(struct ms_arena *arena, uint32_t index)
{
	bin_take(arena, index);
	node_rest(arena, index);
}

bool ms_bins_extend(struct ms_arena *arena, uint32_t region, uint32_t units)
{
	uint32_t last = arena->last[region], spare;

	if (last >= arena->node_max)
		return false;
	if (is_free(arena, last)) {
		bin_take(arena, last);
		arena->nodes[last].size += units;
		bin_put(arena, last);
		return true;
	}
	spare = node_new(arena);
	if (spare == MS_BINS_NONE)
		return false;
	arena->nodes[last].size += units;
	split(arena, last, spare, ms_bins_size(&arena->nodes[last]) - units);
	bin_put(arena, spare);
	return true;
}

/* --- questions --- */

bool ms_bins_has_node(const struct ms_arena *arena)
{
	return arena->bins->resting || arena->bins->node_count < arena->node_max;
}

uint32_t ms_bins_largest(const struct ms_arena *arena)
{
	const struct ms_bins *bins = arena->bins;
	uint32_t rows = bins->rows & ((1u << MS_BINS_ROWS) - 1), row, columns, index, largest = 0;

	if (!rows)
		return 0;
	row = 31 - (uint32_t)__builtin_clz(rows);
	columns = bins->columns[row];
	if (!columns)
		return 0;
	index = bins->head[row][31 - __builtin_clz(columns)];
	for (uint32_t steps = arena->node_max; steps && index < arena->node_max; steps--) {
		largest = (uint32_t)ms_max(largest, ms_bins_size(&arena->nodes[index]));
		index = arena->nodes[index].next;
	}
	return largest;
}

/* One bin: every node is free, of this class, and linked both ways. */
static bool check_bin(
	const struct ms_arena *arena, uint32_t class, uint64_t *units, uint64_t *count)
{
	uint32_t index = head_of(arena->bins, class), prev = MS_BINS_NONE;

	for (; index != MS_BINS_NONE; (*count)++) {
		const struct ms_node *node = node_at(arena, index);
		if (!node || ms_bins_used(node) || node->prev != prev || node->size == 0 ||
			class_down(node->size) != class || *count > arena->node_max)
			return false;
		*units += node->size;
		prev = index;
		index = node->next;
	}
	return true;
}

/* A node and its right neighbour fit together. */
static bool check_node(const struct ms_arena *arena, uint32_t index)
{
	const struct ms_node *node = &arena->nodes[index];
	const struct ms_node *right = node_at(arena, node->right),
			     *left = node_at(arena, node->left);
	uint32_t region = node->region;

	if ((node->right != MS_BINS_NONE && !right) || (node->left != MS_BINS_NONE && !left))
		return false;
	if (region >= arena->region_max)
		return false;
	if (left ? left->right != index : node->offset != 0 || arena->first[region] != index)
		return false;
	if (!right)
		return arena->last[region] == index;
	return right->left == index && right->region == region &&
	       right->offset == node->offset + ms_bins_size(node) &&
	       (ms_bins_used(node) || ms_bins_used(right));
}

bool ms_bins_check(const struct ms_arena *arena)
{
	const struct ms_bins *bins = arena->bins;
	uint64_t binned = 0, binned_count = 0, free = 0, free_count = 0, live = 0, live_count = 0;
	uint32_t nodes = bins->node_count;

	if (nodes > arena->node_max)
		return false;
	for (uint32_t class = 0; class < MS_BINS_ROWS * MS_BINS_COLUMNS; class ++) {
		bool bit = bins->columns[class / MS_BINS_COLUMNS] >> class % MS_BINS_COLUMNS & 1;
		if (bit && !check_bin(arena, class, &binned, &binned_count))
			return false;
	}
	for (uint32_t i = 0; i < nodes; i++) {
		const struct ms_node *node = &arena->nodes[i];
		uint32_t size = ms_bins_size(node);
		if (size && !check_node(arena, i))
			return false;
		free += ms_bins_used(node) ? 0 : size;
		free_count += !ms_bins_used(node) && size;
		live += ms_bins_used(node) ? size : 0;
		live_count += ms_bins_used(node);
	}
	return binned == free && binned_count == free_count && free == bins->free_units &&
	       live == bins->live_units && live_count == bins->live;
}
