/* SPDX-License-Identifier: MIT */
/* test_base.c - options, features, arithmetic: <memslot/base.h>, lib/base/{opts,util,feature}. */
#define _GNU_SOURCE
#include "common.h"

#include "base/opts.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a caller of some later or earlier release may hand over. */
struct options {
	uint32_t size, flags;
	uint64_t one, two;
};

#define KNOWN 3u
#define FIRST offsetof(struct options, two)

static int take(struct options *taken, const void *given)
{
	return ms_opts_take(taken, sizeof *taken, FIRST, KNOWN, given);
}

START_TEST(opts_init_clears_and_sets_the_size)
{
	struct options options;

	memset(&options, 0xff, sizeof options);
	memslot_opts_init(&options, sizeof options);
	ck_assert_uint_eq(options.size, sizeof options);
	ck_assert_uint_eq(options.flags, 0);
	ck_assert(options.one == 0 && options.two == 0);
}
END_TEST

START_TEST(opts_init_writes_nothing_beyond_the_size)
{
	unsigned char bytes[12];

	memset(bytes, 0xaa, sizeof bytes);
	memslot_opts_init(bytes, 8);
	ck_assert_uint_eq(bytes[0], 8);
	ck_assert_uint_eq(bytes[7], 0);
	ck_assert_uint_eq(bytes[8], 0xaa);
}
END_TEST

START_TEST(opts_init_ignores_null_and_sizes_below_four)
{
	unsigned char bytes[4] = {1, 2, 3, 4};

	memslot_opts_init(NULL, 64);
	memslot_opts_init(bytes, 3);
	memslot_opts_init(bytes, 0);
	ck_assert(bytes[0] == 1 && bytes[3] == 4);
}
END_TEST

START_TEST(the_options_macro_sets_the_size_and_zeroes_the_rest)
{
	struct memslot_slot_opts options = MEMSLOT_OPTS(memslot_slot_opts, .guard_before = 5);

	ck_assert_uint_eq(options.size, sizeof options);
	ck_assert(options.guard_before == 5 && options.flags == 0 && !options.on_reset);
}
END_TEST

START_TEST(null_options_are_all_zero)
{
	struct options taken;

	memset(&taken, 0xff, sizeof taken);
	ck_assert_int_eq(take(&taken, NULL), 0);
	ck_assert(taken.flags == 0 && taken.one == 0 && taken.two == 0);
}
END_TEST

START_TEST(options_of_the_right_size_are_taken_whole)
{
	struct options taken, given = {sizeof given, 2, 7, 8};

	ck_assert_int_eq(take(&taken, &given), 0);
	ck_assert(taken.flags == 2 && taken.one == 7 && taken.two == 8);
}
END_TEST

START_TEST(options_from_an_older_header_get_zeros_for_what_is_new)
{
	struct options taken, given = {FIRST, 1, 7, 8};

	ck_assert_int_eq(take(&taken, &given), 0);
	ck_assert(taken.flags == 1 && taken.one == 7);
	ck_assert_uint_eq(taken.two, 0);
}
END_TEST

START_TEST(options_smaller_than_the_first_release_are_einval)
{
	struct options taken, given = {FIRST - 1, 0, 0, 0};

	ck_assert_int_eq(take(&taken, &given), -EINVAL);
	given.size = 0;
	ck_assert_int_eq(take(&taken, &given), -EINVAL);
}
END_TEST

START_TEST(a_newer_tail_is_fine_when_zero_and_e2big_when_not)
{
	struct {
		struct options options;
		unsigned char tail[24];
	} newer = {.options = {sizeof newer, 0, 7, 8}};
	struct options taken;

	ck_assert_int_eq(take(&taken, &newer), 0);
	ck_assert_uint_eq(taken.two, 8);
	for (size_t i = 0; i < sizeof newer.tail; i++) {
		newer.tail[i] = 1;
		ck_assert_int_eq(take(&taken, &newer), -E2BIG);
		newer.tail[i] = 0;
	}
}
END_TEST

START_TEST(the_tail_is_looked_at_only_as_far_as_the_size_says)
{
	struct {
		struct options options;
		unsigned char tail[24];
	} newer = {.options = {sizeof newer.options + 8, 0, 0, 0}};
	struct options taken;

	newer.tail[8] = 1;
	ck_assert_int_eq(take(&taken, &newer), 0);
	newer.options.size++;
	ck_assert_int_eq(take(&taken, &newer), -E2BIG);
}
END_TEST

START_TEST(an_absurd_size_is_e2big_and_not_read)
{
	struct options taken, given = {UINT32_MAX, 0, 0, 0};

	ck_assert_int_eq(take(&taken, &given), -E2BIG);
	given.size = 4097;
	ck_assert_int_eq(take(&taken, &given), -E2BIG);
}
END_TEST

START_TEST(each_unknown_flag_is_einval)
{
	struct options taken;

	for (unsigned bit = 0; bit < 32; bit++) {
		struct options given = {sizeof given, 1u << bit, 0, 0};
		ck_assert_int_eq(take(&taken, &given), bit < 2 ? 0 : -EINVAL);
	}
}
END_TEST

START_TEST(options_need_not_be_aligned)
{
	unsigned char bytes[sizeof(struct options) + 1];
	struct options taken, given = {sizeof given, 1, 7, 8};

	memcpy(bytes + 1, &given, sizeof given);
	ck_assert_int_eq(take(&taken, bytes + 1), 0);
	ck_assert_uint_eq(taken.two, 8);
}
END_TEST

START_TEST(outputs_are_filled_up_to_the_callers_size)
{
	struct options filled = {99, 1, 7, 8}, out = {FIRST, 0, 0, 42};

	ck_assert_int_eq(ms_opts_give(&out, &filled, sizeof filled), 0);
	ck_assert(out.size == FIRST && out.flags == 1 && out.one == 7);
	ck_assert_uint_eq(out.two, 42);
}
END_TEST

START_TEST(outputs_of_a_newer_caller_keep_their_tail)
{
	struct {
		struct options options;
		uint64_t tail;
	} out = {.options = {sizeof out, 0, 0, 0}, .tail = 42};
	struct options filled = {99, 1, 7, 8};

	ck_assert_int_eq(ms_opts_give(&out, &filled, sizeof filled), 0);
	ck_assert(out.options.size == sizeof out && out.options.two == 8 && out.tail == 42);
}
END_TEST

START_TEST(outputs_below_eight_bytes_are_einval_and_untouched)
{
	struct options filled = {99, 1, 7, 8}, out = {7, 5, 6, 7};

	ck_assert_int_eq(ms_opts_give(&out, &filled, sizeof filled), -EINVAL);
	ck_assert(out.flags == 5 && out.one == 6 && out.two == 7);
	out.size = 8;
	ck_assert_int_eq(ms_opts_give(&out, &filled, sizeof filled), 0);
	ck_assert(out.flags == 1 && out.one == 6);
}
END_TEST

/* --- arithmetic --- */

START_TEST(rounding_up_says_when_it_overflows)
{
	uint64_t page = test_page(), out = 42;

	ck_assert(ms_round_up(0, &out) && out == 0);
	ck_assert(ms_round_up(1, &out) && out == page);
	ck_assert(ms_round_up(page, &out) && out == page);
	ck_assert(ms_round_up(page + 1, &out) && out == 2 * page);
	ck_assert(ms_round_up(UINT64_MAX - page + 1, &out) && out == UINT64_MAX - page + 1);
	ck_assert(!ms_round_up(UINT64_MAX - page + 2, &out));
	ck_assert(!ms_round_up(UINT64_MAX, &out));
	ck_assert(out == UINT64_MAX - page + 1);
}
END_TEST

START_TEST(rounding_down_and_alignment_agree_with_the_page_size)
{
	uint64_t page = test_page();

	ck_assert_uint_eq(ms_page_size(), page);
	ck_assert_uint_eq(ms_round_down(page - 1), 0);
	ck_assert_uint_eq(ms_round_down(2 * page + 1), 2 * page);
	ck_assert(ms_page_aligned(0) && ms_page_aligned(page) && !ms_page_aligned(page + 1));
	ck_assert_uint_eq(ms_pages_to_bytes(3), 3 * page);
	ck_assert_uint_eq(ms_bytes_to_pages(3 * page + 1), 3);
}
END_TEST

START_TEST(is_zero_finds_one_set_bit_anywhere)
{
	unsigned char bytes[67] = {0};

	ck_assert(ms_util_is_zero(bytes, 0));
	for (size_t size = 1; size <= sizeof bytes; size++) {
		ck_assert(ms_util_is_zero(bytes, size));
		for (size_t at = 0; at < size; at++) {
			bytes[at] = 0x10;
			ck_assert(!ms_util_is_zero(bytes, size));
			ck_assert(ms_util_is_zero(bytes, at));
			bytes[at] = 0;
		}
	}
}
END_TEST

/* --- version and features --- */

START_TEST(version_is_that_of_the_header)
{
	char text[32];

	snprintf(text, sizeof text, "%d.%d.%d", MEMSLOT_VERSION_MAJOR, MEMSLOT_VERSION_MINOR,
			MEMSLOT_VERSION_PATCH);
	ck_assert_str_eq(memslot_version(), text);
}
END_TEST

START_TEST(every_listed_feature_has_an_answer_that_stays)
{
	const char *name;
	uint32_t count = 0;

	for (; (name = memslot_feature_name(count)); count++) {
		int answer = memslot_feature(name);
		ck_assert_msg(answer == 0 || answer == 1, "%s answers %d", name, answer);
		ck_assert_int_eq(memslot_feature(name), answer);
	}
	ck_assert_uint_ge(count, 10);
	ck_assert_ptr_null(memslot_feature_name(count + 1));
	ck_assert_ptr_null(memslot_feature_name(UINT32_MAX));
}
END_TEST

START_TEST(feature_names_differ_and_exclude_the_word_all)
{
	const char *a, *b;

	for (uint32_t i = 0; (a = memslot_feature_name(i)); i++) {
		ck_assert_str_ne(a, "all");
		ck_assert_ptr_null(strchr(a, ','));
		for (uint32_t j = 0; j < i && (b = memslot_feature_name(j)); j++)
			ck_assert_str_ne(a, b);
	}
}
END_TEST

START_TEST(an_unknown_feature_is_einval)
{
	ck_assert_int_eq(memslot_feature("warp_drive"), -EINVAL);
	ck_assert_int_eq(memslot_feature(""), -EINVAL);
	ck_assert_int_eq(memslot_feature("all"), -EINVAL);
	ck_assert_int_eq(memslot_feature("pagemap_scan "), -EINVAL);
	ck_assert_int_eq(memslot_feature("pagemap"), -EINVAL);
	ck_assert_int_eq(memslot_feature(NULL), -EINVAL);
}
END_TEST

/* Run anew with MEMSLOT_DISABLE: how many features are present? */
int test_again(const char *word)
{
	const char *name;
	int present = 0;

	if (strcmp(word, "count") != 0)
		return memslot_feature(word);
	for (uint32_t i = 0; (name = memslot_feature_name(i)); i++)
		present += memslot_feature(name) == 1;
	return present;
}

START_TEST(disable_all_leaves_no_feature)
{
	ck_assert_int_eq(test_run_again("count", "all"), 0);
	ck_assert_int_eq(test_run_again("count", "memfd_seal,all"), 0);
	ck_assert_int_gt(test_run_again("count", NULL), 0);
}
END_TEST

START_TEST(disable_takes_whole_words_of_a_list)
{
	SKIP_IF(test_run_again("memfd_seal", NULL) != 1, "this kernel has no memfd_seal");
	SKIP_IF(test_run_again("dontneed", NULL) != 1, "this kernel has no dontneed");
	ck_assert_int_eq(test_run_again("memfd_seal", "memfd_seal"), 0);
	ck_assert_int_eq(test_run_again("memfd_seal", "populate,memfd_seal,pkeys"), 0);
	ck_assert_int_eq(test_run_again("memfd_seal", "populate,memfd_seal"), 0);
	ck_assert_int_eq(test_run_again("memfd_seal", "memfd_sea,memfd_seals,allx"), 1);
	ck_assert_int_eq(test_run_again("memfd_seal", ""), 1);
	ck_assert_int_eq(test_run_again("dontneed", "dontneed_locked"), 1);
}
END_TEST

START_TEST(a_feature_that_rests_on_another_goes_with_it)
{
	ck_assert_int_eq(test_run_again("guard_category", "pagemap_scan"), 0);
	ck_assert_int_eq(test_run_again("guard_category", "guard_install"), 0);
}
END_TEST

Suite *test_suite(void)
{
	Suite *suite = suite_create("base");
	TCase *in = test_case(suite, "options in"), *out = test_case(suite, "options out");
	TCase *sums = test_case(suite, "arithmetic"), *features = test_case(suite, "features");

	tcase_add_test(in, opts_init_clears_and_sets_the_size);
	tcase_add_test(in, opts_init_writes_nothing_beyond_the_size);
	tcase_add_test(in, opts_init_ignores_null_and_sizes_below_four);
	tcase_add_test(in, the_options_macro_sets_the_size_and_zeroes_the_rest);
	tcase_add_test(in, null_options_are_all_zero);
	tcase_add_test(in, options_of_the_right_size_are_taken_whole);
	tcase_add_test(in, options_from_an_older_header_get_zeros_for_what_is_new);
	tcase_add_test(in, options_smaller_than_the_first_release_are_einval);
	tcase_add_test(in, a_newer_tail_is_fine_when_zero_and_e2big_when_not);
	tcase_add_test(in, the_tail_is_looked_at_only_as_far_as_the_size_says);
	tcase_add_test(in, an_absurd_size_is_e2big_and_not_read);
	tcase_add_test(in, each_unknown_flag_is_einval);
	tcase_add_test(in, options_need_not_be_aligned);
	tcase_add_test(out, outputs_are_filled_up_to_the_callers_size);
	tcase_add_test(out, outputs_of_a_newer_caller_keep_their_tail);
	tcase_add_test(out, outputs_below_eight_bytes_are_einval_and_untouched);
	tcase_add_test(sums, rounding_up_says_when_it_overflows);
	tcase_add_test(sums, rounding_down_and_alignment_agree_with_the_page_size);
	tcase_add_test(sums, is_zero_finds_one_set_bit_anywhere);
	tcase_add_test(features, version_is_that_of_the_header);
	tcase_add_test(features, every_listed_feature_has_an_answer_that_stays);
	tcase_add_test(features, feature_names_differ_and_exclude_the_word_all);
	tcase_add_test(features, an_unknown_feature_is_einval);
	tcase_add_test(features, disable_all_leaves_no_feature);
	tcase_add_test(features, disable_takes_whole_words_of_a_list);
	tcase_add_test(features, a_feature_that_rests_on_another_goes_with_it);
	return suite;
}
