/* SPDX-License-Identifier: MIT */
/*
 * host_report.c - what happened in memslot host, and whether it is all that should have.
 *
 * Invariant: two sides that count the same thing were counted apart: what was generated and what
 * was done, what workers did and what the pool saw.
 */
#define _GNU_SOURCE
#include "host.h"

#include <stdio.h>

const char *const kind_names[KINDS] = {
	"answer", "hand over", "run off", "fill", "fork", "foreign fault"};

static bool same(const char *what, uint64_t left, uint64_t right)
{
	if (left != right)
		complain(0, "does not add up: %s: %llu and %llu", what, (unsigned long long)left,
			(unsigned long long)right);
	return left == right;
}

bool host_adds_up(const struct host *host, const struct memslot_pool_stats *stats)
{
	const struct counts *counts = &host->counts;
	uint64_t sum = 0,
		 ran_off = counts->beyond_edge + counts->guard_after + counts->guard_before;
	bool good = true;

	for (enum kind kind = ASK; kind < KINDS; kind++) {
		sum += counts->done[kind];
		good &= same(kind_names[kind], host->asked[kind], counts->done[kind]);
	}
	good &= same("requests", host->requests, sum);
	good &= same("acquired, released", counts->acquired, counts->released);
	good &= same("requests, acquired", host->requests, counts->acquired);
	good &= same("released, released too late", counts->released, counts->late_releases);
	good &= same("ran off, places", counts->done[RUN_OFF], ran_off);
	good &= same("memory full", counts->done[FILL], counts->out_of_memory);
	good &= same("children", counts->done[FORK], counts->children);
	good &= same("foreign faults", counts->done[FOREIGN], fault_application_count());
	good &= same("no slot in time", counts->out_of_slots, stats->exhausted);
	good &= same("slots out at the end", 0, stats->live);
	good &= same("waiting at the end", 0, stats->waiters);
	good &= same("verify failures", 0, stats->verify_failures);
	good &= same("slots of the pool",
		stats->idle_warm + stats->idle_cold + stats->queued + stats->quarantined,
		host->slots);
	return good;
}

/* --- JSON --- */

static json_t *describe_requests(const struct host *host)
{
	json_t *object = json_object();

	for (enum kind kind = ASK; kind < KINDS; kind++)
		json_object_set_new(object, kind_names[kind],
			json_pack("{s:I, s:I}", "asked", (json_int_t)host->asked[kind], "done",
				(json_int_t)host->counts.done[kind]));
	return object;
}

static json_t *describe_counts(const struct counts *counts)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"acquired", (json_int_t)counts->acquired, "released", (json_int_t)counts->released,
		"released_elsewhere", (json_int_t)counts->released_elsewhere, "late_releases",
		(json_int_t)counts->late_releases, "no_slot_in_time",
		(json_int_t)counts->out_of_slots, "beyond_edge", (json_int_t)counts->beyond_edge,
		"guard_after", (json_int_t)counts->guard_after, "guard_before",
		(json_int_t)counts->guard_before, "memory_full", (json_int_t)counts->out_of_memory,
		"children", (json_int_t)counts->children, "foreign_faults",
		(json_int_t)counts->foreign, "bytes_compared", (json_int_t)counts->compared,
		"failed", (json_int_t)counts->failed, "wrong_bytes", (json_int_t)counts->wrong);
}

static json_t *describe_pool(const struct memslot_pool_stats *stats)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "slots",
		(json_int_t)stats->capacity_count, "idle_warm", (json_int_t)stats->idle_warm,
		"idle_cold", (json_int_t)stats->idle_cold, "queued", (json_int_t)stats->queued,
		"quarantined", (json_int_t)stats->quarantined, "resident_bytes",
		(json_int_t)stats->resident_bytes, "affinity_hits",
		(json_int_t)stats->affinity_hits, "waits", (json_int_t)stats->waits, "resets_known",
		(json_int_t)stats->slots.resets_known, "resets_scan",
		(json_int_t)stats->slots.resets_scan, "resets_drop",
		(json_int_t)stats->slots.resets_drop, "syscalls",
		(json_int_t)stats->slots.syscalls);
}

static void print_json(const struct host *host, const struct memslot_pool_stats *stats)
{
	json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:f, s:o, s:o, s:o}", "version",
		memslot_version(), "requests", (json_int_t)host->requests, "threads",
		(json_int_t)host->workers, "seed", (json_int_t)host->seed, "seconds", host->seconds,
		"kinds", describe_requests(host), "counts", describe_counts(&host->counts), "pool",
		describe_pool(stats));

	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

/* --- text --- */

static void print_row(const char *what, uint64_t count, const char *note)
{
	printf("  %-26s %10llu  %s\n", what, (unsigned long long)count, note);
}

static void print_requests(const struct host *host)
{
	const struct counts *counts = &host->counts;

	puts("\nRequests");
	print_row("answered", counts->done[ASK], "on one thread");
	print_row("answered, handed over", counts->done[HAND_OVER], "begun on another thread");
	print_row("guest ran off", counts->done[RUN_OFF], "an error, and the host goes on");
	print_row("  beyond its edge", counts->beyond_edge, "");
	print_row("  into the guard behind", counts->guard_after, "");
	print_row("  into the guard in front", counts->guard_before, "");
	print_row("guest filled its memory", counts->done[FILL], "an error at its capacity");
	print_row("guest forked", counts->done[FORK], "the child used its copy, and the pool");
	print_row("application's own faults", counts->done[FOREIGN], "handed on to its handler");
}

static void print_slots(const struct host *host, const struct memslot_pool_stats *stats)
{
	const struct counts *counts = &host->counts;
	char size[32];

	puts("\nSlots");
	print_row("acquired", counts->acquired, "");
	print_row("  with their image", stats->affinity_hits, "that were warm");
	print_row("  after a wait", stats->waits, "some of them in vain");
	print_row("none in time", counts->out_of_slots, "other work was done first");
	print_row("released", counts->released, "");
	print_row("  by another thread", counts->released_elsewhere, "");
	print_row("late releases", counts->late_releases, "refused by their tickets");
	printf("  %-26s %10llu  and %llu cold, %s kept resident\n", "warm at the end",
		(unsigned long long)stats->idle_warm, (unsigned long long)stats->idle_cold,
		format_size(stats->resident_bytes, size, sizeof(size)));
	puts("\nResets");
	print_row("known", stats->slots.resets_known, "by the fault counter");
	print_row("scan", stats->slots.resets_scan, "");
	print_row("drop", stats->slots.resets_drop, "");
}

void host_report(const struct host *host, const struct memslot_pool_stats *stats)
{
	char size[32];

	if (host->json) {
		print_json(host, stats);
		return;
	}
	printf("%llu requests, %u threads, %u plug-ins, %u slots of %s, seed %llu: %.2f s\n",
		(unsigned long long)host->requests, host->workers, host->plugin_count, host->slots,
		format_size(host->capacity, size, sizeof(size)), (unsigned long long)host->seed,
		host->seconds);
	print_requests(host);
	print_slots(host, stats);
	printf("\n%s compared, %llu wrong; %llu failures\n",
		format_size(host->counts.compared, size, sizeof(size)),
		(unsigned long long)host->counts.wrong, (unsigned long long)host->counts.failed);
}
