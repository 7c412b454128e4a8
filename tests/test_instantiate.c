/* SPDX-License-Identifier: MIT */
/* test_instantiate.c - one slot, many images: what a slot shows after instantiate. */
#define _GNU_SOURCE
#include "slots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAPACITY 60u

/* Images that lie before, inside, behind and across each other; small ones are copied, not mapped. */
static const struct place {
	size_t first, count;
} places[] = {{0, 0}, {0, 2}, {0, 30}, {10, 20}, {12, 2}, {25, 35}, {59, 1}, {0, 60}, {30, 3}};
#define PLACES (sizeof places / sizeof places[0])

static struct memslot_image *image_at(size_t place)
{
	return places[place].count ? image_of(places[place].first, places[place].count,
						     (unsigned)place)
				   : NULL;
}

static void assert_place(const struct memslot_slot *slot, size_t place, size_t size)
{
	assert_shows(slot, places[place].first, places[place].count, (unsigned)place, size);
}

/* W3, W5 */
START_TEST(every_image_after_every_other_is_shown_exactly)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(CAPACITY));
	struct memslot_image *images[PLACES];

	for (size_t i = 0; i < PLACES; i++)
		images[i] = image_at(i);
	for (size_t from = 0; from < PLACES; from++) {
		for (size_t to = 0; to < PLACES; to++) {
			size_t end = places[to].first + places[to].count;
			size_t size = PAGES((from + to) % 2 ? CAPACITY : end);
			instantiate(slot, images[from], PAGES(CAPACITY));
			assert_place(slot, from, PAGES(CAPACITY));
			dirty_pages(slot, (from * 7 + to) % 5, CAPACITY - 5, 1 + to % 4);
			instantiate(slot, images[to], size);
			ck_assert_ptr_eq(memslot_slot_image(slot), images[to]);
			assert_place(slot, to, size);
			if (kind_has_edge(_i))
				assert_closed(base_of(slot) + size);
			dirty_all(slot);
			reset(slot);
			assert_place(slot, to, size);
		}
	}
	for (size_t i = 0; i < PLACES; i++)
		memslot_image_unref(images[i]);
	destroy(slot);
}
END_TEST

START_TEST(instantiating_a_dirty_slot_cleans_it)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(CAPACITY));
	struct memslot_image *image = image_of(5, 20, 3);

	for (unsigned round = 0; round < 6; round++) {
		instantiate(slot, round == 3 ? NULL : image, PAGES(30 + round));
		if (round == 3)
			assert_zeros(slot, PAGES(33));
		else
			assert_shows(slot, 5, 20, 3, PAGES(30 + round));
		dirty_all(slot);
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* W3 */
START_TEST(the_same_image_and_size_again_changes_no_mapping)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.flags = MEMSLOT_SLOT_CONFINED, .reset_method = MEMSLOT_RESET_RESTORE);
	struct memslot_slot *slot;
	struct memslot_image *image;
	struct memslot_slot_stats before, after;
	uint64_t least = UINT64_MAX;
	unsigned mappings;

	NEED_FEATURE("fault_counter");
	NEED_FEATURE("pagemap_scan");
	NEED_FEATURE("wipe_on_fork"); /* else getpid is called, too */
	slot = slot_new(PAGES(CAPACITY), &opts);
	image = image_of(5, 20, 3);
	for (int round = 0; round < 3; round++) {
		instantiate(slot, image, PAGES(40));
		dirty_pages(slot, 0, 40, 3);
	}
	instantiate(slot, image, PAGES(40));
	mappings = test_vma_count(base_of(slot), PAGES(CAPACITY));
	before = stats_of(slot);
	for (int round = 0; round < 100; round++) {
		uint64_t calls = stats_of(slot).syscalls;
		dirty_pages(slot, 0, 40, 3);
		instantiate(slot, image, PAGES(40));
		calls = stats_of(slot).syscalls - calls;
		least = calls < least ? calls : least;
	}
	after = stats_of(slot);
	ck_assert_uint_eq(least, 1); /* getrusage; faults of other memory may cost some rounds a scan */
	ck_assert_uint_eq(after.bytes_dropped, before.bytes_dropped);
	ck_assert_uint_eq(test_vma_count(base_of(slot), PAGES(CAPACITY)), mappings);
	assert_shows(slot, 5, 20, 3, PAGES(40));
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* W3 */
START_TEST(another_image_leaves_the_pages_around_it_resident)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.reset_method = MEMSLOT_RESET_SCAN);
	struct memslot_slot *slot;
	struct memslot_image *one, *two;
	uint64_t faults, least = UINT64_MAX;

	NEED_FEATURE("pagemap_scan");
	slot = slot_new(PAGES(200), &opts);
	one = image_of(100, 50, 1);
	two = image_of(100, 50, 2);
	for (int round = 0; round < 6; round++) {
		instantiate(slot, round % 2 ? one : two, PAGES(200));
		faults = test_faults();
		dirty_pages(slot, 0, 64, 1);
		faults = test_faults() - faults;
		least = round && faults < least ? faults : least;
		dirty_pages(slot, 100, 100, 1);
	}
	ck_assert_uint_lt(least, 8);
	memslot_image_unref(one);
	memslot_image_unref(two);
	destroy(slot);
}
END_TEST

START_TEST(sizes_that_cannot_be_are_emsgsize_and_change_nothing)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(CAPACITY));
	struct memslot_image *image = image_of(5, 20, 3), *large = image_of(50, 11, 4);

	instantiate(slot, image, PAGES(40));
	dirty_pages(slot, 30, 5, 1);
	ck_assert_int_eq(memslot_slot_instantiate(slot, NULL, PAGES(CAPACITY) + 1), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, SIZE_MAX), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, PAGES(24)), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, image, 0), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, large, PAGES(CAPACITY)), -EMSGSIZE);
	ck_assert_int_eq(memslot_slot_instantiate(slot, large, PAGES(CAPACITY + 1)), -EMSGSIZE);
	ck_assert_uint_eq(memslot_slot_size(slot), PAGES(40));
	ck_assert_ptr_eq(memslot_slot_image(slot), image);
	ck_assert_uint_eq(base_of(slot)[PAGES(30)], 0xdd);
	reset(slot);
	assert_shows(slot, 5, 20, 3, PAGES(40));
	/* One byte into the image's last page is enough: sizes are rounded up. */
	instantiate(slot, image, PAGES(24) + 1);
	assert_shows(slot, 5, 20, 3, PAGES(25));
	memslot_image_unref(image);
	memslot_image_unref(large);
	destroy(slot);
}
END_TEST

/* W5: sizes that are no page multiples. */
START_TEST(an_image_of_odd_length_ends_in_zeros)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts, .slot_offset = PAGES(2) + 100);
	unsigned char bytes[70000];
	struct memslot_image *image;
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(CAPACITY));

	test_fill(bytes, sizeof bytes, 9);
	ck_assert_int_eq(memslot_image_from_bytes(bytes, sizeof bytes, &opts, &image), 0);
	instantiate(slot, image, PAGES(30) - 1);
	for (int round = 0; round < 3; round++) {
		ck_assert(test_zero(base_of(slot), PAGES(2) + 100));
		ck_assert(test_filled(base_of(slot) + PAGES(2) + 100, sizeof bytes, 9));
		ck_assert(test_zero(base_of(slot) + PAGES(2) + 100 + sizeof bytes,
				PAGES(28) - 100 - sizeof bytes));
		dirty_all(slot);
		reset(slot);
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

/* --- several extents --- */

static struct memslot_image *image_with_gaps(unsigned char *contents)
{
	static unsigned char bytes[4 * 4096];
	const struct memslot_extent extents[] = {
			{PAGES(1), bytes, sizeof bytes},
			{PAGES(8), bytes, 100},
			{PAGES(70) + 5, bytes, 4096},
			{PAGES(150), bytes, sizeof bytes},
	};
	struct memslot_image *image;

	test_fill(bytes, sizeof bytes, 6);
	memset(contents, 0, PAGES(200));
	for (size_t i = 0; i < 4; i++)
		memcpy(contents + extents[i].slot_offset, bytes, extents[i].size);
	ck_assert_int_eq(memslot_image_from_extents(extents, 4, NULL, &image), 0);
	return image;
}

/* W16: several extents instead of one dense image. */
START_TEST(extents_and_the_gaps_between_them_are_shown)
{
	unsigned char *contents = malloc(PAGES(200));
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(200));
	struct memslot_image *image = image_with_gaps(contents), *dense = image_of(0, 180, 1);

	for (unsigned round = 0; round < 4; round++) {
		instantiate(slot, image, PAGES(200));
		ck_assert(test_same(base_of(slot), contents, PAGES(200)));
		dirty_pages(slot, round, 190, round + 1);
		reset(slot);
		ck_assert(test_same(base_of(slot), contents, PAGES(200)));
		instantiate(slot, dense, PAGES(190));
		assert_shows(slot, 0, 180, 1, PAGES(190));
	}
	memslot_image_unref(image);
	memslot_image_unref(dense);
	destroy(slot);
	free(contents);
}
END_TEST

/* The memory that all memory files of this process hold. */
static uint64_t memfd_blocks(void)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	uint64_t blocks = 0;

	while ((entry = readdir(folder))) {
		char target[64] = "";
		struct stat stat;
		ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
		if (length > 0 && strncmp(target, "/memfd:", 7) == 0 &&
				fstat(atoi(entry->d_name), &stat) == 0)
			blocks += (uint64_t)stat.st_blocks;
	}
	closedir(folder);
	return blocks;
}

START_TEST(invariant_05_reading_the_gaps_of_an_image_takes_no_memory)
{
	unsigned char *contents;
	struct memslot_slot *slot;
	struct memslot_image *image;
	uint64_t blocks;

	NEED_FEATURE("memfd_seal");
	contents = malloc(PAGES(200));
	slot = slot_new(PAGES(200), NULL);
	image = image_with_gaps(contents);
	blocks = memfd_blocks();
	ck_assert_uint_gt(blocks, 0);
	instantiate(slot, image, PAGES(200));
	for (size_t page = 0; page < 200; page++)
		ck_assert_uint_eq(((volatile unsigned char *)base_of(slot))[PAGES(page)],
				contents[PAGES(page)]);
	ck_assert_uint_eq(memfd_blocks(), blocks);
	memslot_image_unref(image);
	destroy(slot);
	free(contents);
}
END_TEST

/* --- images that are copied instead of mapped --- */

START_TEST(invariant_04_a_copied_image_survives_every_way_to_lose_pages)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *image = image_of(3, 2, 8);
	struct memslot_slot *slot;

	for (int budget = 0; budget < 3; budget++) {
		/* Default, none, less than the image. */
		opts.copy_budget = budget == 0 ? 0 : budget == 1 ? MEMSLOT_NONE : PAGES(1);
		slot = slot_new(PAGES(40), &opts);
		instantiate(slot, image, PAGES(40));
		for (int round = 0; round < 10; round++) {
			if (round % 3 == 0)
				dirty_all(slot);
			if (round % 3 == 1)
				ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(40)), 0);
			if (round % 3 == 2)
				ck_assert_int_eq(memslot_slot_discard(slot, PAGES(4), PAGES(2)), 0);
			if (round % 3)
				assert_shows(slot, 3, 2, 8, PAGES(40));
			reset(slot);
			assert_shows(slot, 3, 2, 8, PAGES(40));
			if (round == 5) {
				instantiate(slot, NULL, PAGES(40));
				assert_zeros(slot, PAGES(40));
				instantiate(slot, image, PAGES(40));
			}
		}
		destroy(slot);
	}
	memslot_image_unref(image);
}
END_TEST

START_TEST(a_small_image_costs_no_mapping)
{
	struct memslot_slot *slot = slot_new(PAGES(40), NULL);
	struct memslot_image *small = image_of(3, 2, 8), *large = image_of(3, 30, 8);
	unsigned before;

	instantiate(slot, NULL, PAGES(40));
	before = test_vma_count(base_of(slot), PAGES(40));
	instantiate(slot, small, PAGES(40));
	ck_assert_uint_eq(test_vma_count(base_of(slot), PAGES(40)), before);
	instantiate(slot, large, PAGES(40));
	ck_assert_uint_gt(test_vma_count(base_of(slot), PAGES(40)), before);
	memslot_image_unref(small);
	memslot_image_unref(large);
	destroy(slot);
}
END_TEST

/* --- the caller's file --- */

static int file_of(size_t pages, unsigned tag)
{
	char path[] = "memslot-file-XXXXXX";
	unsigned char *bytes = malloc(PAGES(pages));
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	unlink(path);
	test_fill(bytes, PAGES(pages), tag);
	ck_assert_int_eq(write(fd, bytes, PAGES(pages)), (ssize_t)PAGES(pages));
	free(bytes);
	return fd;
}

static struct memslot_image *mapped_file(int fd, size_t first)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts,
			.flags = MEMSLOT_IMAGE_MAP_FILE, .slot_offset = PAGES(first));
	struct memslot_image *image;

	ck_assert_int_eq(memslot_image_from_fd(fd, 0, 0, &opts, &image), 0);
	return image;
}

/* W1 */
START_TEST(a_mapped_file_is_shown_and_never_written)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));
	int fd = file_of(20, 5);
	struct memslot_image *image = mapped_file(fd, 4);
	unsigned char *bytes = malloc(PAGES(20));

	instantiate(slot, image, PAGES(40));
	for (unsigned round = 0; round < 4; round++) {
		assert_shows(slot, 4, 20, 5, PAGES(40));
		dirty_pages(slot, 0, 40, round + 1);
		reset(slot);
	}
	ck_assert_int_eq(memslot_slot_discard(slot, 0, PAGES(40)), 0);
	assert_shows(slot, 4, 20, 5, PAGES(40));
	ck_assert_int_eq(pread(fd, bytes, PAGES(20), 0), (ssize_t)PAGES(20));
	ck_assert(test_filled(bytes, PAGES(20), 5));
	memslot_image_unref(image);
	destroy(slot);
	close(fd);
	free(bytes);
}
END_TEST

/* The library must get no SIGBUS, whatever becomes of the file. */
START_TEST(invariant_06_a_truncated_file_does_not_crash_the_library)
{
	struct memslot_slot *slot = slot_of_kind(_i, PAGES(40));
	int fd = file_of(20, 5);
	struct memslot_image *image = mapped_file(fd, 4), *captured = NULL;
	int error;

	instantiate(slot, image, PAGES(40));
	dirty_all(slot);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(memslot_slot_discard(slot, PAGES(4), PAGES(1)), 0);
	ck_assert_int_eq(memslot_slot_reset(slot), 0);
	ck_assert(test_zero(base_of(slot), PAGES(4)));
	error = memslot_slot_capture(slot, NULL, &captured);
	ck_assert_int_lt(error, 0);
	ck_assert_ptr_null(captured);
	instantiate(slot, NULL, PAGES(40));
	assert_zeros(slot, PAGES(40));
	memslot_image_unref(image);
	destroy(slot);
	close(fd);
}
END_TEST

START_TEST(invariant_06_a_file_is_mapped_by_whole_pages_only)
{
	struct memslot_image_opts opts = MEMSLOT_OPTS(memslot_image_opts,
			.flags = MEMSLOT_IMAGE_MAP_FILE);
	struct memslot_image *image = NULL;
	int fd = file_of(4, 5);

	ck_assert_int_eq(memslot_image_from_fd(fd, 1, 0, &opts, &image), -EINVAL);
	ck_assert_int_eq(memslot_image_from_fd(fd, 0, 100, &opts, &image), -EINVAL);
	opts.slot_offset = 1;
	ck_assert_int_eq(memslot_image_from_fd(fd, 0, 0, &opts, &image), -EINVAL);
	ck_assert_ptr_null(image);
	close(fd);
}
END_TEST

/* --- flags --- */

START_TEST(populate_makes_pages_private_before_they_are_written)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *image = image_of(10, 30, 5);
	struct memslot_slot *slot;
	struct memslot_run run;
	size_t count;

	opts.flags |= MEMSLOT_SLOT_POPULATE;
	slot = slot_new(PAGES(100), &opts);
	instantiate(slot, image, PAGES(100));
	if (memslot_feature("populate") == 1 && memslot_feature("pagemap_scan") == 1) {
		ck_assert_int_eq(memslot_slot_written(slot, &run, 1, &count), 0);
		ck_assert(count == 1 && run.offset == 0 && run.size == PAGES(100));
	}
	for (int round = 0; round < 3; round++) {
		assert_shows(slot, 10, 30, 5, PAGES(100));
		dirty_all(slot);
		reset(slot);
	}
	memslot_image_unref(image);
	destroy(slot);
}
END_TEST

START_TEST(huge_pages_exclude_the_fault_counter)
{
	struct memslot_slot_opts opts = MEMSLOT_OPTS(memslot_slot_opts,
			.flags = MEMSLOT_SLOT_HUGEPAGE | MEMSLOT_SLOT_CONFINED);
	struct memslot_slot *slot = slot_new(8u << 20, &opts);

	instantiate(slot, NULL, 8u << 20);
	for (int round = 0; round < 4; round++) {
		uint64_t known = stats_of(slot).resets_known;
		dirty_pages(slot, 0, 2048, 7);
		reset(slot);
		ck_assert_uint_eq(stats_of(slot).resets_known, known);
		assert_zeros(slot, 8u << 20);
	}
	destroy(slot);
}
END_TEST

static void assert_flags(const struct memslot_slot *slot, size_t pages, const char *flag)
{
	for (size_t page = 0; page < pages; page++)
		ck_assert_msg(test_vma_flag(base_of(slot) + PAGES(page), flag), "page %zu has no %s",
				page, flag);
}

START_TEST(invariant_13_every_page_keeps_the_slots_attributes)
{
	struct memslot_slot_opts opts = kind_opts(_i);
	struct memslot_image *mapped = image_of(4, 10, 5), *other = image_of(8, 14, 6);
	struct memslot_slot *slot;

	opts.flags |= MEMSLOT_SLOT_DONTFORK | MEMSLOT_SLOT_DONTDUMP;
	slot = slot_new(PAGES(24), &opts);
	for (int round = 0; round < 5; round++) {
		struct memslot_image *images[] = {mapped, other, NULL};
		instantiate(slot, images[round % 3], PAGES(24));
		if (round == 4)
			ck_assert_int_eq(memslot_slot_checkpoint(slot, NULL), 0);
		assert_flags(slot, 24, "dc");
		assert_flags(slot, 24, "dd");
		if (access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0)
			assert_flags(slot, 24, "nh");
	}
	memslot_image_unref(mapped);
	memslot_image_unref(other);
	destroy(slot);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("instantiate");
	TCase *shown = test_case(suite, "what is shown"), *gaps = test_case(suite, "extents");
	TCase *copied = test_case(suite, "copied images"), *file = test_case(suite, "mapped files");
	TCase *flags = test_case(suite, "flags");

	each_kind(shown, every_image_after_every_other_is_shown_exactly);
	each_kind(shown, instantiating_a_dirty_slot_cleans_it);
	each_kind(shown, sizes_that_cannot_be_are_emsgsize_and_change_nothing);
	each_kind(shown, an_image_of_odd_length_ends_in_zeros);
	tcase_add_test(shown, the_same_image_and_size_again_changes_no_mapping);
	tcase_add_test(shown, another_image_leaves_the_pages_around_it_resident);
	each_kind(gaps, extents_and_the_gaps_between_them_are_shown);
	tcase_add_test(gaps, invariant_05_reading_the_gaps_of_an_image_takes_no_memory);
	each_kind(copied, invariant_04_a_copied_image_survives_every_way_to_lose_pages);
	tcase_add_test(copied, a_small_image_costs_no_mapping);
	each_kind(file, a_mapped_file_is_shown_and_never_written);
	each_kind(file, invariant_06_a_truncated_file_does_not_crash_the_library);
	tcase_add_test(file, invariant_06_a_file_is_mapped_by_whole_pages_only);
	each_kind(flags, populate_makes_pages_private_before_they_are_written);
	tcase_add_test(flags, huge_pages_exclude_the_fault_counter);
	tcase_add_loop_test(flags, invariant_13_every_page_keeps_the_slots_attributes, 0, SLOT_EDGES);
	return suite;
}
