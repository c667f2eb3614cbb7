#include "greeting.h"

#include <stdio.h>

int greeting(char *text, size_t size, const char *name)
{
    return snprintf(text, size, "Good day, %s. This wall holds without mortar.\n", name);
}
