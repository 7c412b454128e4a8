/* SPDX-License-Identifier: MIT */
/* host.c - instances of a translated module, one after the other, until there is no room for more. */
#include "guest.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "wasm-rt-impl.h"

int main(int argc, char **argv)
{
	unsigned long most = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000, made = 0, stale = 0;
	static Z_guest_instance_t guest;
	unsigned long missed = 0;

	wasm_rt_init();
	Z_guest_init_module();
	for (; made < most; made++) {
		/* What wasm-rt does where there is no room is to abort. */
		void *room = mmap(NULL, 0x200000000ul, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (room == MAP_FAILED)
			break;
		munmap(room, 0x200000000ul);
		Z_guest_instantiate(&guest);
		for (u32 at = 0; at < 16 * 65536; at += 4096)
			stale += Z_guestZ_load(&guest, at) != 0;
		for (u32 at = 0; at < 16 * 65536; at += 65536)
			Z_guestZ_store(&guest, at, 7);
		if (made % 100 == 0 && wasm_rt_impl_try() == 0) {
			Z_guestZ_load(&guest, 16 * 65536);
			missed++;
		}
		Z_guest_free(&guest);
	}
	printf("stale %lu missed %lu\n", stale, missed);
	printf("instances %lu\n", made);
	return 0;
}
