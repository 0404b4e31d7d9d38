// What can be asked: the kinds of usage and costs, as the API has them.

export interface Subject {
  label: string;
  path: string;
  measures: readonly string[];
  groupBy: readonly string[];
  /** Dimension to the parameter that selects by it. */
  filters: Readonly<Record<string, string>>;
  /** The measure is a level: its mean over time is told, not its sum. */
  isLevel?: boolean;
  /** What counts calls; what has none is a level. */
  calls?: string;
}

const FILTERS = {
  model: "models",
  project_id: "project_ids",
  user_id: "user_ids",
  api_key_id: "api_key_ids",
  batch: "batch",
  size: "sizes",
  source: "sources",
  vector_store_id: "vector_store_ids",
  context_level: "context_levels",
} as const;

function usage(label: string, name: string, measures: readonly string[], groupBy: readonly string[]): Subject {
  const filters = Object.fromEntries(Object.entries(FILTERS).filter(([dimension]) => groupBy.includes(dimension)));
  return { label, path: `/v1/organization/usage/${name}`, measures, groupBy, filters };
}

const WHO = ["project_id", "user_id", "api_key_id"] as const;
const MODEL = ["model", ...WHO] as const;
const TOKENS = [
  "input_tokens",
  "output_tokens",
  "input_cached_tokens",
  "input_cache_write_tokens",
  "input_cache_write_30m_tokens",
  "input_cache_write_12h_tokens",
  "input_uncached_tokens",
  "input_text_tokens",
  "input_image_tokens",
  "input_audio_tokens",
  "input_cached_text_tokens",
  "input_cached_audio_tokens",
  "input_cached_image_tokens",
  "output_text_tokens",
  "output_audio_tokens",
  "output_image_tokens",
] as const;
const REQUESTS = "num_model_requests";
const RUN = [...MODEL, "service_tier", "batch", "api_source"] as const;

export const SUBJECTS: Readonly<Record<string, Subject>> = {
  costs: {
    label: "Spend",
    path: "/v1/organization/costs",
    measures: ["amount"],
    groupBy: ["model", "line_item", "project_id", "user_id", "api_key_id", "service_tier", "batch", "api_source"],
    filters: {
      model: "models",
      line_item: "line_items",
      project_id: "project_ids",
      user_id: "user_ids",
      api_key_id: "api_key_ids",
      service_tier: "service_tier",
      batch: "batch",
    },
  },
  completions: { ...usage("Completions", "completions", [...TOKENS, REQUESTS], RUN), calls: REQUESTS },
  decisions: { ...usage("Decisions", "decisions", [...TOKENS, REQUESTS], RUN), calls: REQUESTS },
  embeddings: { ...usage("Embeddings", "embeddings", ["input_tokens", REQUESTS], MODEL), calls: REQUESTS },
  moderations: { ...usage("Moderations", "moderations", ["input_tokens", REQUESTS], MODEL), calls: REQUESTS },
  images: { ...usage("Images", "images", ["images", REQUESTS], [...MODEL, "size", "source"]), calls: REQUESTS },
  audio_speeches: { ...usage("Speeches", "audio_speeches", ["characters", REQUESTS], MODEL), calls: REQUESTS },
  audio_transcriptions: {
    ...usage("Transcriptions", "audio_transcriptions", ["seconds", REQUESTS], MODEL),
    calls: REQUESTS,
  },
  vector_stores: { ...usage("Vector stores", "vector_stores", ["usage_bytes"], ["project_id"]), isLevel: true },
  code_interpreter_sessions: {
    ...usage("Code interpreter", "code_interpreter_sessions", ["num_sessions"], ["project_id"]),
    calls: "num_sessions",
  },
  file_search_calls: {
    ...usage("File searches", "file_search_calls", ["num_requests"], [...WHO, "vector_store_id"]),
    calls: "num_requests",
  },
  web_search_calls: {
    ...usage("Web searches", "web_search_calls", ["num_requests", REQUESTS], [...MODEL, "context_level", "api_source"]),
    calls: "num_requests",
  },
};

export const KINDS = Object.entries(SUBJECTS).filter(([name]) => name !== "costs");

export function subject(name: string): Subject {
  const found = SUBJECTS[name];
  if (!found) throw new Error(`There is no ${name} to ask for.`);
  return found;
}

const WORDS: Readonly<Record<string, string>> = {
  amount: "Spend",
  num_model_requests: "Requests",
  num_requests: "Searches",
  num_sessions: "Sessions",
  usage_bytes: "Bytes held",
  project_id: "Project",
  user_id: "User",
  api_key_id: "API key",
  api_source: "API",
  vector_store_id: "Vector store",
  input_cache_write_30m_tokens: "Input cache write tokens, 30 min",
  input_cache_write_12h_tokens: "Input cache write tokens, 12 h",
};

/** A field of the API in words. */
export function words(field: string): string {
  const plain = field.replaceAll("_", " ");
  return WORDS[field] ?? plain.charAt(0).toUpperCase() + plain.slice(1);
}
