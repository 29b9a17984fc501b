/* Statistics of groups of pages, renewed after those of the pages. */
#pragma once

#include "../backend.h"

namespace ps {

/* Of every group that the slots [tokens] touch. */
void renew_groups(Backend &backend, const CacheView &cache, int32_t layer, const int32_t *slots, int64_t tokens);

/* Of the group of one page, in all layers, as ending with this page and its first `num_tokens` tokens. */
void renew_group_of(Backend &backend, const CacheView &cache, int32_t page, int32_t num_tokens);

}  // namespace ps
