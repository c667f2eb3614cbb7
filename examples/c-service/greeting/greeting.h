#ifndef GREETING_H
#define GREETING_H

#include <stddef.h>

/* Writes a greeting for `name` into `text`, which holds `size` bytes; its length. */
int greeting(char *text, size_t size, const char *name);

#endif
