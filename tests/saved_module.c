/* SPDX-License-Identifier: MIT */
/* saved_module.c - a shared object that test_saved loads; without a build-id, as WORD has it. */
__attribute__((visibility("default"))) const char *saved_module_word(void);

const char *saved_module_word(void)
{
	return WORD;
}
