/* SPDX-License-Identifier: MIT */
/* program.cpp - the same in C++11, with a slot that frees itself: see install.py. */
#include <memslot.h>

#include <cstring>
#include <memory>

namespace {

struct destroy {
	void operator()(memslot_slot *slot) const
	{
		memslot_slot_destroy(slot);
	}
};

using owned_slot = std::unique_ptr<memslot_slot, destroy>;

owned_slot make_slot(std::size_t capacity)
{
	memslot_slot_opts opts;
	memslot_slot *slot = nullptr;

	memslot_opts_init(&opts, sizeof opts);
	opts.flags = MEMSLOT_SLOT_CONFINED;
	opts.guard_after = MEMSLOT_NONE;
	if (memslot_slot_create(capacity, &opts, &slot))
		return nullptr;
	return owned_slot(slot);
}

} // namespace

int main()
{
	owned_slot slot = make_slot(1 << 20);

	if (!slot || memslot_slot_instantiate(slot.get(), nullptr, 1 << 20))
		return 1;
	auto bytes = static_cast<char *>(memslot_slot_base(slot.get()));
	for (int run = 0; run < 3; run++) {
		if (bytes[0] || bytes[100000])
			return 1;
		std::memset(bytes, 'x', 200000);
		if (memslot_slot_reset(slot.get()))
			return 1;
	}
	return 0;
}
