// Prometheus text to numbers, and what the live view shows of them.

const SAMPLE = /^tenon:(\w+)\{model_name="([^"]*)"\} (\S+)$/gm;

/** Samples whose only label is the model, as {name: value}, summed over models. */
export function parseMetrics(text) {
  const values = {};
  for (const [, name, , value] of text.matchAll(SAMPLE)) values[name] = (values[name] ?? 0) + Number(value);
  return values;
}

/** What happened between two scrapes; `seconds` lie between them. */
export function view(now, before, seconds) {
  const change = (name) => Math.max(0, (now[name] ?? 0) - (before[name] ?? 0));
  const rate = (name) => (before && seconds > 0 ? change(name) / seconds : 0);
  const queries = now.prefix_cache_queries_total ?? 0;
  return {
    running: now.num_requests_running ?? 0,
    waiting: now.num_requests_waiting ?? 0,
    used: now.kv_blocks_used ?? 0,
    total: now.kv_blocks_total ?? 0,
    hitRate: queries ? now.prefix_cache_hits_total / queries : null,
    generated: rate("generation_tokens_total"),
    prompted: rate("prompt_tokens_total"),
  };
}
