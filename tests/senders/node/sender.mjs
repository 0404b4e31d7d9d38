// Makes calls with one client of npm's and exports their spans. Standard input: as python/sender.py has it. Where spans go
// is said by OpenTelemetry's variables.
import { text } from "node:stream/consumers";
import { NodeTracerProvider, BatchSpanProcessor, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";

const { models, client, calls, batch } = JSON.parse(await text(process.stdin));
const apiKey = "sk-none";
const exporter = new OTLPTraceExporter();
const processor = batch ? new BatchSpanProcessor(exporter) : new SimpleSpanProcessor(exporter);
const provider = new NodeTracerProvider({ spanProcessors: [processor] });
provider.register();

// Vercel's AI SDK: `generate` and `stream` of its version, the providers' factories, and what switches telemetry on.
function vercel({ generateText, streamText, embed }, { createOpenAI }, { createAnthropic }, telemetry) {
  const openai = createOpenAI({ baseURL: `${models}/v1`, apiKey });
  const anthropic = createAnthropic({ baseURL: `${models}/v1`, apiKey });
  const shapes = { chat: openai.chat, responses: openai.responses, messages: anthropic };
  return async ({ api, model, stream }) => {
    if (api === "embeddings") return embed({ model: openai.embedding(model), value: "hi", ...telemetry });
    const asked = { model: shapes[api](model), prompt: "hi", maxRetries: 0, ...telemetry };
    if (!stream) return generateText(asked);
    for await (const _ of streamText(asked).textStream);
  };
}

const clients = {
  async ai7() {
    const [ai, { OpenTelemetry }] = await Promise.all([import("ai"), import("@ai-sdk/otel")]);
    ai.registerTelemetry(new OpenTelemetry());
    return vercel(ai, await import("@ai-sdk/openai"), await import("@ai-sdk/anthropic"), {});
  },
  async ai6() {
    const telemetry = { experimental_telemetry: { isEnabled: true } };
    return vercel(await import("ai6"), await import("openai6"), await import("anthropic6"), telemetry);
  },
  async anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const sdk = new Anthropic({ baseURL: models, apiKey, maxRetries: 0 });
    return async ({ model, stream }) => {
      const answer = await sdk.messages.create({ model, stream, max_tokens: 1000, messages: [{ role: "user", content: "hi" }] });
      if (stream) for await (const _ of answer);
    };
  },
};

const make = await clients[client]();
let failed = 0;
for (const call of calls) {
  try {
    await make(call);
  } catch (error) {
    failed += 1;
    console.error(call, error);
  }
}
await provider.forceFlush();
await provider.shutdown();
process.exit(failed ? 1 : 0);
