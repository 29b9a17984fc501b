/* Scoring of pages, or of groups of pages, for page_choose.cu. */
#pragma once

#include "../backend.h"

namespace ps {

constexpr int kFastHeads = 16; /* most query heads per KV head of scores on tensor cores */

/* Whether statistics of this cache are scored on tensor cores. */
bool has_fast_score(const ps_cache_desc &desc);

/* Scores units of so many logical pages, 1 or desc.group_pages: scores[row, unit]. */
void score_units(Backend &backend, const PageScoreParams &params, int32_t unit_pages);

}  // namespace ps
