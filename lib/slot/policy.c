/* SPDX-License-Identifier: MIT */
/*
 * policy.c - AUTO: which way to reset is cheapest, learnt from what the slot does.
 *
 * Arithmetic only: nothing here touches a page, so nothing here can be unsafe. A retained page pays
 * rent (a copy) at every reset; a dropped page that is written again pays a refault. KEEP retains
 * and restores; DROP drops everything and reads nothing. What is still written is learnt by
 * comparing retained pages with the image:
 *
 *   sampler    KEEP looks at one random page for every 64 it restores; clean looks add up to waste
 *   inspecting enough waste: every run compares every page, until nothing suspicious is left
 *   evict      cold pages go when that pays for itself within a few runs
 *   give up    a CUSUM of what keeping cost beyond dropping grows past a part of one whole refault
 *   trial      DROP tries KEEP again after 8 runs, then 16 ... 64
 *
 * Each doubt that was for nothing makes the next one dearer. Prices are measured (price.c), copies
 * and scans also per slot. Owned by the slot's thread.
 */
#include "slot/policy.h"

#define SAMPLE_EVERY 64.0f /* restored pages a look stands for */
#define DOUBT_MAX 64.0f
#define AGE_NEVER 255u
#define DROPS_MIN 8u
#define DROPS_MAX 64u
#define SOON 64u	   /* giving up so soon after a trial: the trial was too early */
#define PAYBACK 16.0f	   /* runs in which an eviction has to pay for itself */
#define TIME_EVERY 8u	   /* restores from one that is timed to the next */
#define TIME_PAGES 8u	   /* smaller sets are not worth two clock readings */
#define SCAN_PAGE_NS 40.0f /* what one found page adds to a scan */
#define CLEAN_PAUSE 64u

static float at_most(float value, float limit)
{
	return value < limit ? value : limit;
}

static float at_least(float value, float limit)
{
	return value > limit ? value : limit;
}

/* A dropped page that is written again. */
static float refault(void)
{
	const struct ms_prices *prices = ms_price_list();

	return prices->fault + prices->drop_page;
}

static float rent(const struct ms_policy *policy)
{
	return policy->restore_ns > 0 ? policy->restore_ns : ms_price_list()->restore;
}

static float scan_price(const struct ms_policy *policy)
{
	return policy->scan_ns > 0 ? policy->scan_ns : ms_price_list()->scan;
}

void ms_policy_init(struct ms_policy *policy, uint64_t seed)
{
	*policy = (struct ms_policy){
		.drops = DROPS_MIN,
		.since_trial = SOON,
		.doubt = 1,
		.random = seed | 1,
	};
}

/* valid 1 | drop 1 | drops 8 | doubt 8 | restore_ns 16 | scan_ns / 16 16 */
uint64_t ms_policy_pack(const struct ms_policy *policy)
{
	if (policy->inspecting || policy->trial)
		return 0;
	return 1 | (uint64_t)policy->drop << 1 | (uint64_t)policy->drops << 8 |
	       (uint64_t)policy->doubt << 16 |
	       (uint64_t)at_most(policy->restore_ns, 65535) << 24 |
	       (uint64_t)at_most(policy->scan_ns / 16, 65535) << 40;
}

void ms_policy_unpack(struct ms_policy *policy, uint64_t learnt)
{
	if (!(learnt & 1))
		return;
	policy->drop = learnt >> 1 & 1;
	policy->drops = (uint32_t)ms_max(learnt >> 8 & 255, DROPS_MIN);
	policy->drops_left = policy->drop ? policy->drops : 0;
	policy->doubt = at_least((float)(learnt >> 16 & 255), 1);
	policy->restore_ns = (float)(learnt >> 24 & 65535);
	policy->scan_ns = (float)(learnt >> 40 & 65535) * 16;
}

uint64_t ms_policy_random(struct ms_policy *policy)
{
	/* xorshift64*: G. Marsaglia, Xorshift RNGs, 2003; S. Vigna, 2016 */
	policy->random ^= policy->random >> 12;
	policy->random ^= policy->random << 25;
	policy->random ^= policy->random >> 27;
	return policy->random * 0x2545f4914f6cdd1du >> 32;
}

bool ms_policy_drops(struct ms_policy *policy)
{
	if (!policy->drop)
		return false;
	if (policy->drops_left) {
		policy->drops_left--;
		return true;
	}
	policy->drop = false;
	policy->trial = policy->inspecting = true;
	policy->useful = false;
	policy->since_trial = 0;
	policy->looks = 0;
	policy->loss = policy->credit = policy->waste = 0;
	return false;
}

/* --- the sampler --- */

unsigned ms_policy_samples(struct ms_policy *policy, size_t pages)
{
	unsigned looks;

	policy->since_trial += policy->since_trial < SOON;
	policy->credit += (float)pages;
	looks = (unsigned)(policy->credit / SAMPLE_EVERY);
	policy->credit -= (float)looks * SAMPLE_EVERY;
	return looks;
}

static void begin_inspection(struct ms_policy *policy)
{
	policy->inspecting = true;
	policy->useful = false;
	policy->looks = 0;
	policy->waste = policy->loss = policy->idle = policy->back = 0;
}

void ms_policy_sampled(struct ms_policy *policy, size_t pages, bool clean)
{
	/* Old doubts belong to another set. */
	if ((float)pages > policy->judged * 1.25f)
		policy->doubt = 1;
	policy->waste += clean ? SAMPLE_EVERY : 0;
	if (!policy->inspecting && policy->waste >= policy->doubt * (float)pages)
		begin_inspection(policy);
}

/* --- inspecting --- */

unsigned ms_policy_cold_age(const struct ms_policy *policy)
{
	float age = refault() / (3 * rent(policy));

	return (unsigned)at_most(at_least(age, 3), AGE_NEVER);
}

unsigned ms_policy_suspect_age(const struct ms_policy *policy)
{
	/* looks counts finished ones; this is one more */
	return policy->looks < 3 ? policy->looks + 1 : 4;
}

enum ms_verdict ms_policy_look(struct ms_policy *policy, const struct ms_look *look)
{
	float pages = (float)look->pages, hits = (float)look->hits, limit;

	policy->looks++;
	policy->since_trial += policy->since_trial < SOON;
	policy->loss += rent(policy) * pages + (look->scanned ? scan_price(policy) : 0) -
			refault() * hits - ms_price_list()->drop_call;
	policy->loss = at_least(policy->loss, 0);
	if (policy->trial && look->hits && look->hits >= look->fresh)
		policy->trial = false;
	limit = policy->trial ? refault() * (hits + (float)look->fresh)
			      : refault() * pages / 3;
	if (policy->loss <= limit)
		return MS_VERDICT_GO_ON;
	policy->drops = policy->since_trial < SOON
				? (policy->drops * 2 < DROPS_MAX ? policy->drops * 2 : DROPS_MAX)
				: DROPS_MIN;
	policy->drops_left = policy->drops;
	policy->drop = true;
	policy->inspecting = policy->trial = false;
	return MS_VERDICT_GIVE_UP;
}

bool ms_policy_evicts(const struct ms_policy *policy, size_t cold, size_t calls, bool scanned)
{
	const struct ms_prices *prices = ms_price_list();
	float n = (float)cold, returns = policy->idle > 0 ? policy->back / policy->idle : 0;
	float saved = n * rent(policy) - n * returns * refault();

	if (cold == 0)
		return false;
	/* One page that comes back costs a scan as well, unless there is one anyway. */
	if (!scanned)
		saved -= at_most(1, n * returns) * scan_price(policy);
	return saved * PAYBACK >= (float)calls * prices->drop_call + n * prices->drop_page;
}

void ms_policy_evicted(struct ms_policy *policy, size_t cold, size_t before)
{
	if (before == 0)
		return;
	policy->loss *= (float)(before - cold) / (float)before;
	policy->useful |= cold * 8 >= before;
}

/* The inspection is over, one way or the other. */
static void end_inspection(struct ms_policy *policy, size_t pages)
{
	policy->doubt = policy->useful ? at_least(policy->doubt / 2, 1)
				       : at_most(policy->doubt * 2, DOUBT_MAX);
	policy->judged = (float)pages;
	policy->inspecting = false;
	policy->waste = policy->credit = 0;
}

void ms_policy_judge(struct ms_policy *policy, size_t pages, size_t suspects)
{
	if (policy->idle > 8 * (float)pages) {
		policy->idle /= 2;
		policy->back /= 2;
	}
	if (policy->trial)
		return;
	if (policy->looks >= 3 && suspects * 8 < pages) {
		end_inspection(policy, pages);
	} else if (policy->looks >= ms_policy_cold_age(policy) + 2) {
		if (policy->useful)
			policy->looks = 0, policy->useful = false;
		else
			end_inspection(policy, pages);
	}
}

/* --- measurements --- */

/* EWMA of a quarter; one preempted sample must not decide anything. */
static void mix(float *value, float sample)
{
	if (*value <= 0)
		*value = sample;
	else
		*value += (at_most(sample, *value * 4) - *value) / 4;
}

bool ms_policy_times_restore(struct ms_policy *policy, size_t pages)
{
	return pages >= TIME_PAGES && ++policy->timed % TIME_EVERY == 0;
}

void ms_policy_restored(struct ms_policy *policy, size_t pages, uint64_t ns)
{
	mix(&policy->restore_ns, (float)ns / (float)pages);
}

/* The first scan after a cleaning: did it help? If not, try less and less often. */
static void judge_cleaning(struct ms_policy *policy, float ns)
{
	policy->clean_pause -= policy->clean_pause > 0;
	if (policy->cleaned_ns <= 0)
		return;
	if (ns < policy->cleaned_ns / 2) {
		policy->clean_tries = 0;
		policy->scan_ns = ns;
	} else {
		policy->failed_ns = policy->cleaned_ns;
		policy->clean_pause = CLEAN_PAUSE << policy->clean_tries;
		policy->clean_tries = (uint8_t)ms_min(policy->clean_tries + 1u, 6);
	}
	policy->cleaned_ns = 0;
}

void ms_policy_scanned(struct ms_policy *policy, size_t found, uint64_t ns)
{
	float base = at_least((float)ns - SCAN_PAGE_NS * (float)found, 100);

	if (!policy->scanned) { /* the first one opens descriptors and faults its own code in */
		policy->scanned = true;
		return;
	}
	judge_cleaning(policy, (float)ns);
	mix(&policy->scan_ns, (float)ns);
	/* The floor follows slowly upwards, so that a lucky sample is forgotten. */
	if (policy->scan_floor <= 0 || base < policy->scan_floor)
		policy->scan_floor = base;
	else
		policy->scan_floor += at_most(base, 4 * policy->scan_floor) / 1024;
	policy->found = (float)found;
}

/* What scans cost beyond what they find explains. */
static float scan_excess(const struct ms_policy *policy)
{
	return policy->scan_ns - SCAN_PAGE_NS * policy->found - policy->scan_floor;
}

bool ms_policy_cleans_soon(const struct ms_policy *policy)
{
	float explained = policy->scan_ns - scan_excess(policy);

	return scan_excess(policy) > 2 * explained &&
	       (policy->clean_pause == 0 || policy->scan_ns > 2 * policy->failed_ns);
}

bool ms_policy_cleans(struct ms_policy *policy, size_t stretches)
{
	float price = (float)stretches * ms_price_list()->drop_call;

	if (stretches == 0 || scan_excess(policy) * PAYBACK < price)
		return false;
	policy->cleaned_ns = policy->scan_ns;
	return true;
}
