/* SPDX-License-Identifier: MIT */
/*
 * serve_report.c - what happened in memslot serve, and whether it is all that should have.
 *
 * Invariant: two sides that count the same thing were counted apart.
 */
#define _GNU_SOURCE
#include "serve.h"

#include <stdio.h>

static bool same(const char *what, uint64_t left, uint64_t right)
{
	if (left != right)
		complain(0, "does not add up: %s: %llu and %llu", what, (unsigned long long)left,
			(unsigned long long)right);
	return left == right;
}

bool serve_adds_up(const struct server *server)
{
	const struct counts *counts = &server->counts;
	uint64_t replies = 0;
	bool good = true;

	for (unsigned i = 0; i < STATUSES; i++)
		replies += counts->replies[i];
	good &= same("accepted, closed", counts->accepted, counts->closed);
	good &= same("connections at the end", 0, server->conn_count);
	good &= same("operations begun, over", counts->begun, counts->over);
	good &= same("requests, replies", counts->requests, replies);
	if (server->echo)
		good &= same("bytes in, bytes out and lost", counts->bytes_in,
			counts->bytes_out + counts->bytes_lost);
	else if (counts->cut_off == 0)
		good &= same("replies, finished", replies, counts->finished);
	good &= same("plain buffers out", 0, server->out);
	good &= same("buffers out", 0, server->stats.live);
	good &= same("waiting for buffers", 0, server->stats.waiters);
	good &= same("guards left", 0, server->stats.in_flight);
	good &= same("quarantined buffers", 0, server->stats.quarantined);
	return good;
}

/* --- JSON --- */

static json_t *describe_replies(const struct counts *counts)
{
	json_t *object = json_object();

	for (unsigned i = 0; i < STATUSES; i++) {
		char code[4] = {http_names[i][0], http_names[i][1], http_names[i][2]};
		json_object_set_new(object, code, json_integer((json_int_t)counts->replies[i]));
	}
	return object;
}

static json_t *describe_counts(const struct counts *counts)
{
	const struct {
		const char *name;
		uint64_t count;
	} rows[] = {{"accepted", counts->accepted}, {"closed", counts->closed},
		{"requests", counts->requests}, {"finished", counts->finished},
		{"cut_off", counts->cut_off}, {"timeouts", counts->timeouts},
		{"bytes_in", counts->bytes_in}, {"bytes_out", counts->bytes_out},
		{"bytes_lost", counts->bytes_lost}, {"receives", counts->receives},
		{"sends", counts->sends}, {"reads", counts->reads},
		{"zero_copy_sends", counts->zero_copies}, {"short_sends", counts->short_sends},
		{"short_reads", counts->short_reads}, {"operations_begun", counts->begun},
		{"operations_over", counts->over}, {"waits_for_buffers", counts->waits},
		{"receives_without_buffer", counts->no_buffers},
		{"receives_stopped", counts->stops}};
	json_t *object = json_object();

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		json_object_set_new(object, rows[i].name, json_integer((json_int_t)rows[i].count));
	return object;
}

static json_t *describe_pool(const struct server *server)
{
	const struct memslot_buffers_stats *stats = &server->stats;

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "live",
		(json_int_t)stats->live, "budget", (json_int_t)stats->budget, "high_water",
		(json_int_t)stats->high_water, "idle_bytes", (json_int_t)stats->idle_bytes, "waits",
		(json_int_t)stats->waits, "wait_ns", (json_int_t)stats->wait_ns, "in_flight",
		(json_int_t)stats->in_flight, "quarantined", (json_int_t)stats->quarantined,
		"plain_fallbacks", (json_int_t)stats->plain_fallbacks, "group_window",
		(json_int_t)server->group_stats.window, "group_enobufs",
		(json_int_t)server->group_stats.enobufs);
}

static void print_json(const struct server *server)
{
	json_t *object = json_pack("{s:s, s:s, s:s, s:b, s:I, s:f, s:f, s:I, s:o, s:o, s:o}",
		"version", memslot_version(), "what", server->echo ? "echo" : "files", "engine",
		server->transport->name, "plain", server->plain, "buffer_size",
		(json_int_t)server->buffer_size, "seconds",
		(double)(server->ended_ns - server->began_ns) / 1e9, "cpu_seconds",
		server->cpu_seconds, "most_connections", (json_int_t)server->most_seen, "counts",
		describe_counts(&server->counts), "replies", describe_replies(&server->counts),
		"pool", server->plain ? json_null() : describe_pool(server));

	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

/* --- text --- */

static void print_row(const char *what, uint64_t count, const char *note)
{
	printf("  %-36s %12llu  %s\n", what, (unsigned long long)count, note);
}

static void print_traffic(const struct server *server)
{
	const struct counts *counts = &server->counts;
	char in[32], out[32];

	print_row("connections", counts->accepted, "");
	print_row("  at once", server->most_seen, "");
	print_row("  cut off", counts->cut_off, "with something on its way");
	for (unsigned i = 0; i < STATUSES; i++) {
		if (counts->replies[i])
			print_row(http_names[i], counts->replies[i], "");
	}
	printf("  %-36s %12s  received\n  %-36s %12s  sent\n", "bytes",
		format_size(counts->bytes_in, in, sizeof(in)), "",
		format_size(counts->bytes_out, out, sizeof(out)));
	print_row("operations", counts->over, "");
	print_row("  receives", counts->receives, "");
	print_row("  reads", counts->reads, "");
	print_row("  sends", counts->sends, "");
	print_row("    without a copy", counts->zero_copies, "");
}

static void print_pool(const struct server *server)
{
	const struct memslot_buffers_stats *stats = &server->stats;
	char size[32];

	print_row("connections waited", server->counts.waits, "for buffers");
	if (server->plain)
		return;
	printf("  %-36s %12s  most that was out\n", "buffers",
		format_size(stats->high_water, size, sizeof(size)));
	print_row("  out at the end", stats->live, "");
	print_row("  guards at the end", stats->in_flight, "");
	print_row("  plain", stats->plain_fallbacks, "areas not registered");
}

void serve_report(const struct server *server)
{
	double seconds = (double)(server->ended_ns - server->began_ns) / 1e9;

	if (server->json) {
		print_json(server);
		return;
	}
	printf("%s, %s%s, %.2f s, %.2f s of a processor, %.2f us for each operation\n",
		server->echo ? "echo" : "files", server->transport->name,
		server->plain ? ", plain buffers" : "", seconds, server->cpu_seconds,
		server->cpu_seconds * 1e6 / (double)(server->counts.over + 1));
	print_traffic(server);
	print_pool(server);
}
