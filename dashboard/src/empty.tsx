// What an empty store shows: how to send the first event.

import { Copy } from "./parts";

export function Empty() {
  const command = `curl -s ${location.origin}/v1/organization/usage/events \\
  -H "Authorization: Bearer $TALLYBOOK_ADMIN_KEY" \\
  -d '{"kind": "completions", "id": "resp_1", "timestamp": '$(date +%s)', "model": "gpt-4o-2024-08-06",
       "project_id": "proj_search", "input_tokens": 1000, "input_cached_tokens": 800, "output_tokens": 120}'`;
  return (
    <section class="panel empty" aria-label="First event">
      <h2>Nothing has been recorded in the last 60 days</h2>
      <p>
        Send a first event, with an admin key that may write in place of the variable. It is seen at once under Live.
      </p>
      <pre tabindex={0}>{command}</pre>
      <p>
        <Copy text={() => command}>Copy</Copy>
      </p>
      <p class="quiet">
        What you have can be sent as it is: OpenTelemetry, LiteLLM, answers of OpenAI's and Anthropic's APIs, files. The
        endpoints are described <a href="/docs">in the API's documentation</a>.
      </p>
    </section>
  );
}
